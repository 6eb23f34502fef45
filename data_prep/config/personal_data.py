"""Knobs of the removal of personal data."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config

PersonalDataKind = Literal["email", "iban", "payment_card", "ip", "address", "phone"]


@dataclass(frozen=True)
class PersonalDataConfig(Config):
    """Personal data that is replaced in documents: which kinds, and what stands in their place.

    A placeholder should be distinctive: where a text holds it already, it is taken for a replacement made before, and
    nothing that touches it is replaced. So to replace twice is to replace once.
    """

    kinds: tuple[PersonalDataKind, ...]
    """What is replaced; () for nothing. In any order: the kinds of a text are always looked for in the order "email",
    "iban", "payment_card", "ip", "address", "phone", and what an earlier one took no later one sees."""
    email_placeholder: str
    """Stands where an e-mail address stood."""
    iban_placeholder: str
    """Stands where an international bank account number stood."""
    payment_card_placeholder: str
    """Stands where the number of a payment card stood."""
    ip_placeholder: str
    """Stands where a public IPv4 or IPv6 address stood."""
    address_placeholder: str
    """Stands where a postal address stood."""
    phone_placeholder: str
    """Stands where a phone number stood."""
    phone_regions: tuple[str, ...]
    """Countries (ISO 3166, for example "US") whose national numbers are found where no word such as "phone" stands
    beside them, if they are written in the groups that libphonenumber knows for the country. Each adds its own false
    ones: of ten digits at random, written as 3-3-4, 37 % are a number of "US"; in groups at random 4 %, and 5 %
    with the seven countries of the recipe. International numbers ("+41 …") are found from everywhere."""
    phone_leniency: Literal["valid", "possible"]
    """What libphonenumber's tables must say of a number without such a word: that it lies in a range in use ("valid"),
    or only that some number is that long ("possible")."""
    phone_words: tuple[str, ...]
    """Words, in any case, that make a number of 7 to 15 digits beside them a phone number, whatever its country."""
    emails: Literal["international", "ascii", "lower_case"] = "international"
    """What may be an e-mail address: "international", letters of all scripts, with few marks; "ascii", as datatrove has
    it, ASCII's letters and digits with the marks !#$%&'*+/=?^_`{|}~- ; "lower_case", the same in small letters alone,
    as in the published FineWeb."""
    ips: Literal["by_context", "every_ipv4"] = "by_context"
    """What is an IP address: IPv4 and IPv6, unless the words before say that it is a version or the like; or, as
    datatrove has it, every four numbers that are a public IPv4 address, whatever stands beside them."""

    def __post_init__(self):
        super().__post_init__()
        if len(set(self.kinds)) < len(self.kinds):
            raise UsageError(f"personal_data.kinds names a kind twice: {self.kinds}. Name each once.")
        for kind in self.kinds:
            if not (placeholder := self.placeholder(kind)).strip():
                raise UsageError(
                    f"personal_data.{kind}_placeholder is {placeholder!r}, but {kind} is among personal_data.kinds: "
                    f"give it a text that shows, or leave the kind out."
                )
        if self.phone_regions:
            from phonenumbers import SUPPORTED_REGIONS

            if wrong := [region for region in self.phone_regions if region not in SUPPORTED_REGIONS]:
                raise UsageError(
                    f"personal_data.phone_regions has {wrong[0]!r}, of which libphonenumber knows no numbers. Give "
                    'countries by the two capital letters of ISO 3166, as "US".'
                )

    def placeholder(self, kind: str) -> str:
        """What stands in the place of one of that kind."""
        return getattr(self, f"{kind}_placeholder")
