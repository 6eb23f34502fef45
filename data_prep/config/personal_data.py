"""Knobs of the removal of personal data."""

from dataclasses import dataclass

from lm.fields import Config


@dataclass(frozen=True)
class PersonalDataConfig(Config):
    """Personal data that is replaced in kept documents."""

    replace_emails: bool
    """Replace e-mail addresses."""
    email_placeholder: str
    """Text that stands where an e-mail address stood."""
