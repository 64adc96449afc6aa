"""What people say: the culture that somebody believes a picture to come from, kept for the next training run."""

from gateway.feedback.blueprint import blueprint

__all__ = ["blueprint"]
