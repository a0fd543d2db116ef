"""Errors that a person can act on: what happened, where, what to do next."""


class TextToVideoError(Exception):
    """Base of every error this project raises on purpose; its text is meant for people."""


class RequestError(TextToVideoError, ValueError):
    """A parameter that cannot be used."""


class ModelError(TextToVideoError):
    """A model folder or file that cannot be used."""
