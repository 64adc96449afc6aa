"""Messages generated from config.proto by `make proto`; never edited by hand."""
