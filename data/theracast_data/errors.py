"""The errors a user can act on. Messages say what is wrong, where, and how to mend it; never a patient's values."""


class TheracastError(ValueError):
    """Whatever the user of a command can mend; the command line prints its message alone."""


class StudyError(TheracastError):
    """The study file does not say what it must."""


class SchemaError(TheracastError):
    """A table is not what the study says it is."""


class CohortError(TheracastError):
    """The patients do not allow what is asked of them."""


class ArtifactError(TheracastError):
    """A saved model is damaged, foreign, too new, or does not hold what it promises."""


class RegistryError(TheracastError):
    """The registry refuses, or does not know, what is asked for."""


class ImageError(TheracastError):
    """An image, a region or a dose is damaged, incomplete, ambiguous, or does not belong to the others."""
