"""Config of the replacement of personal data."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config

PersonalDataKind = Literal["email", "iban", "payment_card", "ip", "address", "phone"]


@dataclass(frozen=True)
class PersonalDataConfig(Config):
    """Which kinds of personal data to replace in documents, and by which placeholders.

    A placeholder should be distinctive: if a text already contains it, it counts as an earlier replacement, and nothing
    that touches it is replaced. So replacing twice equals replacing once.
    """

    kinds: tuple[PersonalDataKind, ...]
    """Kinds to replace; (): none. Kinds are always searched for in the order "email", "iban", "payment_card", "ip",
    "address", "phone", and a later one ignores text that an earlier one matched."""
    email_placeholder: str
    """Replacement of e-mail addresses."""
    iban_placeholder: str
    """Replacement of international bank account numbers (IBAN)."""
    payment_card_placeholder: str
    """Replacement of payment card numbers."""
    ip_placeholder: str
    """Replacement of public IPv4 and IPv6 addresses."""
    address_placeholder: str
    """Replacement of postal addresses."""
    phone_placeholder: str
    """Replacement of phone numbers."""
    phone_regions: tuple[str, ...]
    """Countries (ISO 3166, e.g. "US") whose national numbers are found even without a word such as "phone" next to
    them, if they are written in the groups that libphonenumber knows for the country. Each country adds false
    positives: of ten random digits written as 3-3-4, 37 % are a number of "US"; in random groups 4 %, and 5 % with the
    seven countries of the recipe. International numbers ("+41 …") of all countries are found."""
    phone_words: tuple[str, ...]
    """Words, case-insensitive, that mark a nearby number of 7 to 15 digits as a phone number, of any country."""
    emails: Literal["international", "ascii", "lower_case"] = "international"
    """Syntax of e-mail addresses. "international": letters of all scripts, few punctuation marks; "ascii", as in
    datatrove: ASCII letters, digits and the marks !#$%&'*+/=?^_`{|}~- ; "lower_case", as in the published FineWeb: the
    same with only lower-case letters."""
    ips: Literal["by_context", "every_ipv4"] = "by_context"
    """What counts as an IP address. "by_context": IPv4 and IPv6, unless the preceding words show that it is a version
    or similar; "every_ipv4", as in datatrove: every public IPv4 address, in any context."""

    def check_values(self):
        if len(set(self.kinds)) < len(self.kinds):
            raise UsageError(f"personal_data.kinds has a kind twice: {self.kinds}. List each once.")
        for kind in self.kinds:
            if not (placeholder := self.placeholder(kind)).strip():
                raise UsageError(
                    f"personal_data.{kind}_placeholder is {placeholder!r}, but {kind} is among personal_data.kinds: "
                    "give a visible text, or remove the kind."
                )
        if self.phone_regions:
            from phonenumbers import SUPPORTED_REGIONS

            if wrong := [region for region in self.phone_regions if region not in SUPPORTED_REGIONS]:
                raise UsageError(
                    f"personal_data.phone_regions has {wrong[0]!r}, a region that libphonenumber does not know. Give "
                    'two-letter codes of ISO 3166, such as "US".'
                )

    def placeholder(self, kind: str) -> str:
        """Return the placeholder of a kind."""
        return getattr(self, f"{kind}_placeholder")
