"""What the model server promises: the contract, the pixels, and how the server is told to run."""
