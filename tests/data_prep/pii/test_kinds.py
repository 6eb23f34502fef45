"""Texts in which each kind of personal data is found, and texts in which it is not."""

import random

import pytest
from stdnum import iban as stdnum_iban
from stdnum import luhn

from configs.recipes.gristmill import PERSONAL_DATA as CONFIG
from data_prep.pii import FINDERS, iban, payment_card, phone

AROUND = ["{}", "<{}>", "{}.", "'{}',", "({})", "…{}…", "\n{}\n", "über {} é", "“{}”;", "\u00a0{}\u00a0"]


def found(kind: str, text: str) -> list[str]:
    return [text[start:stop] for start, stop in FINDERS[kind](text, CONFIG)]


WHOLE = {
    "email": [
        "a@b.de", "First.Last+tag@sub.sub2.example.co.uk", "under_score%x-1@ex-ample.museum", "7@7.com",
        "o'neill@x.org",
        f"{'l' * 64}@{'d' * 63}.org", "müller@straße.de", "почта@пример.рф", "χρήστης@παράδειγμα.ελ", "अजय@डाटा.भारत",
        "a@b.xn--p1ai", "john\u200b.doe@exam\u00adple.com",
    ],
    "ip": ["81.2.69.160", "8.8.8.88", "223.255.255.1", "2a02:6b8::2:242", "2001:4860:0:0:0:0:0:8", "2606:4700::1111",
           "8.8.8.8", "1.1.1.1",],
    "iban": [
        "GB33BUKB20201555555555", "DE89 3704 0044 0532 0130 00", "no93 8601 1117 947",
        "MT31MALT01100000000000000000123",
    ],
    "payment_card": [
        "4012888888881881", "4012 8888 8888 1881", "5105-1051-0510-5100", "378282246310005", "3782 822463 10005",
        "30569309025904",
        "6011 1111 1111 1117", "6304 0000 0000 0000", "2223003122003222",
    ],
    "phone": [
        "(212) 736-5000", "212-736-5000", "212.736.5000", "020 7946 0018", "+41 44 668 18 00", "+41 (0)44 668 18 00",
        "0041 44 668 18 00", "+442079460018", "1-800-843-0008", "212-736-5000 x123", "+٤١٤٤٦٦٨١٨٠٠",
        "978-744-1234", "(978) 744-1234", "979.845.3211", "+1 979 845 3211", "1-978-744-1234", "(02) 9818 6072",
        "0412 874 986", "212-7365000", "(01904) 621234",
    ],
    "address": [
        "12 Main Street", "221B Baker Street", "1600 Pennsylvania Ave. NW, Washington, DC 20500",
        "350 Fifth Avenue, Suite 100, New York, NY 10118", "10 Downing Street, London SW1A 2AA",
        "P.O. Box 69440, Los Angeles, CA 90069",
        "12 St James Pl, Apt 4", "12 rue de la Paix, 75002 Paris", "1600 Broadway Apt. 4",
        "12 rue Victor Hugo", "Via Garibaldi 12, 00153 Roma",
        "Hauptstraße 12, 10115 Berlin",
        "Lange Straße 7", "Rua Augusta, 1500", "PSC 0413, Box 8144\nAPO AA 42323", "2450 E 42nd Street",
        "6750 Koskikatu 25 Apt. 864", "Unter den Linden 77, 10117 Berlin", "Flat 3, 12 High Street, Leeds LS1 4QT",
        "Postfach 12 34 56, 10115 Berlin", "Plot No. 45, Link Road, Mumbai, Maharashtra 400043", "Corso d'Augusto, 62",
        "4/12 Oakwood Avenue, Fitzroy VIC 3065", "Keizersgracht 123, 1015 CJ Amsterdam",
        "Storgatan 2 B, 111 13 Stockholm",
        "14 Crown Street, Suite 321, London, United Kingdom", "USS Mahler\nFPO AA 70489",
        "4978 Chapman Bypass, Salem, OR 97301",
        "Calle Mayor, nº 5, 28013 Madrid", "350 Fifth Avenue, 15th Floor,\nNew York,\nNY 10118",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind in WHOLE for what in WHOLE[kind]])
def test_found_whole_in_any_context(kind, what):
    for around in AROUND:
        text = around.format(what)
        assert found(kind, text) == [what], text


LEFT = {
    "email": """
@name
a@b
a @ b.de
user@localhost
a@b.1
@a.b@
x@-y.de
logo@2x.png
lodash@4.17.21
name [at] domain dot com
""",
    "ip": """
192.168.1.1
10.0.0.1
127.0.0.1
192.0.2.1
169.254.1.1
224.0.0.251
255.255.255.255
version 1.2.3.4
v2.0.1.7
section 1.1.2.3
libfoo 4.3.2.1
libfoo-4.3.2.1
foo==1.2.3.4
upgraded from 1.2.3.4 to 1.2.3.5
versions 1.2.3.4, 1.2.3.5 and 1.2.3.6
1.2.3.4 Introduction
§ 1.2.3.4
Chapter 8.8.8.8
Chrome 4.3.2.1
version 80.2.3.4
v80.2.3.4
Section 80.1.2.3
81.2.69.160.1
81.2.69
181.2.69.300
81.02.69.160
12:30:45
std::vector
dead::beef
::1
fe80::1
2001:db8::1
00:1b:44:11:3a:b7
00:1b:44:11:3a:b7:12:13
x81.2.69.160
81.2.69.160x
1.3.6.1.4.1.311
""",
    "iban": """
GB34BUKB20201555555555
GB33BUKB2020155555555
XX33BUKB20201555555555
AGB33BUKB20201555555555
AA11 AAAA
""",
    "payment_card": """
4012888888881882
9012888888881889
0.4012888888881881
x4012888888881881
40128888888818811
4222222222222
4012 8888-8888 1881
4006381333931
x.org/4012888888881881
""",
    "phone": """
2127365000
2010-05-06
06/05/2010
1998-2003
1 234 567
1.234.567
3.14159265
978-0-306-40615-7
978 0 306 40615 7
9780306406157
979-10-90636-07-1
ISBN-10: 978-250-1234
2127 36 5000
21 2736 5000
21273-65000
ISBN 0-306-40615-2
$212-736-5000
#212-736-5000
/212-736-5000
212-736-5000-1
2010-05-06 12:30:45
1931 11.2 60.0
100 105 67-70
1/299792458
1779–83 (1994)
20100506123045
100 200 300 400
12 of 300
+999 123 456 789
""",
    "address": """
5 Supreme Court
the 1987 Wall Street crash
one of the key figures in Sweden
12 people on the street
Main Street
3 Star Way
1912 and 1913. The evolution
St. 5
Via mail 5
Weg 1999 war
$12 Main Street
located in 15 States
Platz 4
lives in 1984
March 12, 10115 Berlin
Track 9 Via Negativa 3:47
In 2010, Link Road
улс 134
""",
}
"""{kind: texts, one a line}."""


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in LEFT for text in LEFT[kind].strip().split("\n")])
def test_not_found(kind, text):
    assert found(kind, text) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Phone: 451 5986", ["451 5986"]),
        ("tel.: 0341 8387176, 0341 8387177", ["0341 8387176", "0341 8387177"]),
        ("416 60 039 office", ["416 60 039"]),
        ("(Fax 21 284 698 2548)", ["21 284 698 2548"]),
        ("Phone\n2127365000\nFax\n2127365001", ["2127365000", "2127365001"]),
        ("(call 212 736 5000)", ["212 736 5000"]),
        ("Call me (212 736 5000)", ["212 736 5000"]),
        ("telegram 451 5986", []),
        ("phone 12 451 5986", ["12 451 5986"]),
        ("The phone of 2010 sold 4515986", []),
        ("phones sold on 2010-05-06", []),
        ("You can reach Priya Brannigan at 010-4093420.", ["010-4093420"]),
        ("My number is 5403926876", ["5403926876"]),
        ("the number 5403926876", []),
        ("Desk: +1-903-240-4508x769\nFax: 259.735.7502x459", ["+1-903-240-4508x769", "259.735.7502x459"]),
        ("hotel 451 5986", []),
        ("phone 978-0-306-40615-7", []),
        ("212-736-5000 212-736-5001", ["212-736-5000", "212-736-5001"]),
    ],
)
def test_a_keyword_makes_a_number_a_phone_number(text, numbers):
    assert found("phone", text) == numbers


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("联系我们a@b.de谢谢", ["a@b.de"]),
        ("Contact..........me@x.org", ["me@x.org"]),
        ("mailto:a@b.de?subject=x", ["a@b.de"]),
        ("a@b.de,c@d.fr;e@f.it", ["a@b.de", "c@d.fr", "e@f.it"]),
        ("...@a@b.de", ["a@b.de"]),
        ("'quoted'a@b.de'", ["quoted'a@b.de"]),
        ("q=a@b.de&x=1", ["a@b.de"]),
    ],
)
def test_an_address_ends_at_the_following_text(text, addresses):
    assert found("email", text) == addresses


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("Ping 8.8.8.8, then 8.8.4.4.", ["8.8.8.8", "8.8.4.4"]),
        ("1.2.3.4", ["1.2.3.4"]),
        ("(5.9.12.3)", ["5.9.12.3"]),
        ("from 5.9.12.3 to 4.4.4.4", ["5.9.12.3", "4.4.4.4"]),
        ("The host at 5.9.12.3:80 fell silent", ["5.9.12.3"]),
        ("[IPv6:2a02:6b8::2:242]", ["2a02:6b8::2:242"]),
        ("2a02:6b8::2:242: no route", ["2a02:6b8::2:242"]),
        ("http://[2606:4700::1111]:80/", ["2606:4700::1111"]),
    ],
)
def test_context_of_an_ip_address(text, addresses):
    assert found("ip", text) == addresses


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("She lives at Puruntie 82 with her dog", ["Puruntie 82"]),
        ("Puruntie 82 with her dog", []),
        ("Address: 12 Willows", ["12 Willows"]),
        ("12 Willows", []),
        ("Go to 12 Elm St, then left", ["12 Elm St"]),
        ("Oikeassa.\nLänsikatu 15, PL 61", ["Länsikatu 15"]),
        ("(ul. Grójecka 75)", ["ul. Grójecka 75"]),
        ("available via Windows 10 and the powerful Perl 5", []),
        ("located in Ngorongoro District, 180 km west", []),
        ("1100 Connecticut Ave. NW\nWashington, DC 20036\nFlorida\n801 Third Street South\nSt. Petersburg, FL 33701",
         ["1100 Connecticut Ave. NW\nWashington, DC 20036", "801 Third Street South\nSt. Petersburg, FL 33701"]),
    ],
)  # fmt: skip
def test_context_of_an_address(text, addresses):
    assert found("address", text) == addresses


@pytest.mark.parametrize("first", "aA.")
def test_the_beginning_of_a_text_does_not_affect_distant_matches(first):
    """Without a blank near a number, its context was once parsed from the beginning of the text: this took quadratic
    time, and a lower-case letter there hid the address."""
    assert found("address", f"{first}{'.' * 60}Hauptstraße 12") == ["Hauptstraße 12"]


def test_few_random_groups_of_ten_digits_are_phone_numbers():
    """37 % of ten-digit strings are a number in one of the regions; most do not have its grouping."""
    source, taken = random.Random(0), 0
    for _ in range(2000):
        digits = "".join(source.choices("0123456789", k=10))
        ends = sorted(source.sample(range(2, 9), source.choice((1, 2))))
        taken += bool(
            found("phone", f"x {' '.join(digits[a:b] for a, b in zip([0, *ends], [*ends, 10], strict=True))} y")
        )
    assert taken < 0.10 * 2000


def test_a_short_card_number_needs_a_keyword():
    assert found("payment_card", "My card is 4222222222222.") == ["4222222222222"]
    assert found("payment_card", "EAN 4222222222222") == []


def test_checksums_follow_the_standard():
    source = random.Random(0)
    for _ in range(300):
        number = "4" + "".join(source.choices("0123456789", k=14))
        for digit in "0123456789":
            assert payment_card.is_card(number + digit) == luhn.is_valid(number + digit)
        account = f"DE{source.randrange(100):02}{source.randrange(10**18):018}"
        right = f"DE{stdnum_iban.calc_check_digits('DE00' + account[4:])}{account[4:]}"
        assert iban.is_iban(right)
        assert iban.is_iban(account) == (account == right or stdnum_iban.is_valid(account))


def test_the_iban_of_every_country_has_a_length():
    assert len(iban.lengths()) > 70
    assert {"DE": 22, "NO": 15, "MT": 31}.items() <= iban.lengths().items()


@pytest.mark.parametrize("region", ["US", "GB", "DE", "FR", "IT", "JP", "BR", "IN", "AU", "NG"])
def test_numbering_plans_agree_with_libphonenumber(region):
    """The library accepts every number that we accept. It accepts more: repeated calling codes, and national numbers
    without trunk prefix."""
    import phonenumbers

    def library(number: str, region: str | None) -> bool:
        try:
            return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
        except phonenumbers.NumberParseException:
            return False

    source, agreed = random.Random(region), 0
    example = phonenumbers.example_number(region)
    assert example is not None
    start, code = phonenumbers.national_significant_number(example)[:-4], example.country_code
    trunk = phonenumbers.ndd_prefix_for_region(region, True) or ""
    for _ in range(200):
        number = source.choice(["", start]) + "".join(source.choices("0123456789", k=source.choice([4, 7, 8, 9, 10])))
        national = phone.national_plan(region).fullmatch(trunk + number) is not None
        international = phone.is_international(f"{code}{number}")
        wanted = library(trunk + number, region), library(f"+{code}{number}", None)
        assert national <= wanted[0] and international <= wanted[1], number
        agreed += (national, international) == wanted
    assert agreed >= 190
