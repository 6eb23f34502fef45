"""Random labeled texts with addresses and phone numbers of sixteen countries, with invented or common names.

A second test set besides presidio-research's, written independently of the patterns in data_prep/pii. Names, towns and
sentences are divided in two halves: patterns may be tuned on "tune", figures are reported on "report". Half of the
texts have no personal data, but similar strings: prices, dates, ISBNs, orders, scores, verses.
"""

import random
import re
from typing import Literal

Half = Literal["tune", "report"]

SURNAMES = [
    "Miller", "Okafor", "Lindqvist", "Moreau", "Castellano", "Whitfield", "Brannigan", "Desai", "Hofmann", "Van-Dyke",
    "Achterberg", "Novak",
]  # fmt: skip
FIRST_NAMES = [
    "Anna", "Peter", "Chidi", "Ingrid", "Luc", "Maria", "George", "Sean", "Priya", "Karl", "Joost", "Milan",
]  # fmt: skip
US_SUFFIXES = [
    "Street", "St", "St.", "Avenue", "Ave", "Ave.", "Road", "Rd", "Drive", "Dr", "Dr.", "Lane", "Ln", "Boulevard",
    "Blvd", "Court", "Ct", "Way", "Place", "Pl", "Terrace", "Circle", "Parkway", "Pkwy", "Trail", "Loop", "Run",
    "Path", "Pike", "Highway", "Ridge", "Crossing", "Square", "Cove", "Point",
]  # fmt: skip
GB_SUFFIXES = [
    "Street", "Road", "Lane", "Close", "Gardens", "Mews", "Grove", "Crescent", "Hill", "Way", "Drive", "Avenue",
    "Place", "Terrace", "Square", "Row", "Park",
]  # fmt: skip
ENGLISH_STREETS = [
    "Maple", "Oakwood", "Washington", "Church", "Lakeview", "2nd", "Station", "Queen", "Mill", "Victoria",
    "Martin Luther King", "Elm Tree", "N Lincoln", "Albert", "W. Jefferson", "St. John's", "Old Mill", "14th",
    "King George", "E Orchard", "Riverbend", "Windsor", "Fox Hollow", "Chestnut",
]  # fmt: skip
BRITISH_STREETS = [name for name in ENGLISH_STREETS if name[0] not in "12NEW"]
INDIAN_STREETS = [
    "MG Road",
    "Nehru Nagar",
    "Gandhi Road",
    "2nd Cross",
    "Link Road",
    "Park Street",
    "Anna Salai",
    "SV Road",
]

COUNTRIES: dict[str, dict] = {
    "US": {
        "streets": [f"{name} {suffix}" for name in ENGLISH_STREETS for suffix in US_SUFFIXES],
        "towns": ["Springfield, IL 62###", "Portland, OR 972##", "St. Paul, MN 551##", "Baton Rouge, LA 708##",
                  "New Haven, Connecticut 065##", "Tucson, AZ 857##-####", "Salem, Massachusetts 019##",
                  "El Paso, TX 799##"],
        "forms": ["{n} {street}, {town}", "{n} {street}\n{town}", "{n} {street}, Apt. %#, {town}",
                  "{n} {street}\nSuite %##\n{town}",
                  "{n} {street} Ste %#, {town}", "P.O. Box %###, {town}", "PO Box %###\n{town}", "{n} {street}",
                  "{n} {street}, Unit @, {town}", "{n} {street}, %th Floor\n{town}"],
        "phones": ["(503) 2##-####", "212-7##-####", "415.6##.####", "+1 978-4##-####", "979-5##-####",
                   "1-800-4##-####",
                   "+1 (651) 2##-####", "617 8##-####", "001-303-4##-####", "7025######", "(312) 4##-#### ext. %##",
                   "978.3##.####"],
    },
    "GB": {
        "streets": [f"{name} {suffix}" for name in BRITISH_STREETS for suffix in GB_SUFFIXES],
        "towns": ["London SW%@ %AB", "Leeds LS% %QT", "Bath, Somerset BA% %LN", "Manchester, M%# %HP",
                  "Cardiff\nCF## %AL",
                  "York\nYO%# %DS", "Milton Keynes MK% %ET", "Newcastle upon Tyne NE% %RU"],
        "forms": ["{n} {street}, {town}", "{n} {street}\n{town}", "Flat %, {n} {street}, {town}",
                  "{n}a {street}, {town}",
                  "Unit %, {n} {street}\n{town}", "{n} {street}", "PO Box %##, {town}", "{n}-%# {street}, {town}"],
        "phones": ["020 7946 0###", "0161 496 0###", "01904 62####", "07911 12####", "+44 20 7946 0###",
                   "07911 123 ###",
                   "+44 (0)161 496 0###", "(01904) 62####", "0113 496 0###", "+4479111#####"],
    },
    "CA": {
        "streets": [f"{name} {suffix}" for name in ENGLISH_STREETS for suffix in US_SUFFIXES[:16]],
        "towns": ["Toronto, ON M%@ #B#", "Vancouver BC V%@ %L%", "Halifax, Nova Scotia B%J %K#",
                  "Calgary, AB  T%P %K#"],
        "forms": ["{n} {street}, {town}", "{n} {street}\n{town}", "%##-{n} {street}, {town}",
                  "{n} {street}, Suite %##, {town}"],
        "phones": ["416-4##-####", "(604) 7##-####", "+1 902 4## ####", "403.2##.####"],
    },
    "AU": {
        "streets": [f"{name} {suffix}" for name in BRITISH_STREETS for suffix in GB_SUFFIXES],
        "towns": ["Parramatta NSW 21##", "Fitzroy, VIC 30##", "West End QLD 41##", "Fremantle WA 61##"],
        "forms": ["{n} {street}, {town}", "%/{n} {street}, {town}", "Unit %, {n} {street}\n{town}",
                  "PO Box %##, {town}", "{n} {street}\n{town}"],
        "phones": ["(02) 9### ####", "03 9### ####", "0412 ### ###", "+61 4## ### ###", "1300 ### ###",
                   "+61 2 9### ####"],
    },
    "DE": {
        "streets": ["Hauptstraße", "Goethestr.", "Lindenallee", "Am Markt", "Bahnhofstrasse", "Mühlenweg",
                    "Berliner Straße", "Marktplatz",
                    "An der Alster", "Gartenweg", "Kirchgasse", "Unter den Linden"],
        "towns": ["101## Berlin", "506## Köln", "D-803## München", "79### Freiburg im Breisgau", "201## Hamburg",
                  "60### Frankfurt am Main"],
        "forms": ["{street} {n}, {town}", "{street} {n}\n{town}", "{street} {n}a, {town}",
                  "{street} {n}\n{town}\nGermany", "Postfach %# ## ##, {town}"],
        "phones": ["+49 30 2######", "030 / 8######", "0171 2######", "+49 (0)89 4######", "0221-4######",
                   "0711 2## ## ##"],
    },
    "FR": {
        "streets": ["rue de la Paix", "avenue Victor Hugo", "boulevard Saint-Michel", "place de la République",
                    "rue du Moulin", "allée des Tilleuls",
                    "impasse du Puits", "chemin des Vignes"],
        "towns": ["750## Paris", "690## Lyon", "33### Bordeaux Cedex", "F-670## Strasbourg", "310## Toulouse",
                  "44000 Nantes"],
        "forms": ["{n} {street}, {town}", "{n}, {street}\n{town}", "{n} bis {street}, {town}", "BP %##, {town}",
                  "{n} {street}\n{town}\nFrance"],
        "phones": ["01 4# ## ## ##", "+33 6 12 ## ## ##", "06.12.##.##.##", "04-78-##-##-##",
                   "+33 (0)1 45 ## ## ##", "0612######"],
    },
    "NL": {
        "streets": ["Keizersgracht", "Dorpsstraat", "Beethovenlaan", "Nieuwe Kerkweg", "Stationsplein",
                    "Oude Haven", "Wilhelminakade", "Lange Dijk"],
        "towns": ["%### CJ Amsterdam", "%### AB Utrecht", "%###KL  Den Haag", "%### GX Groningen"],
        "forms": ["{street} {n}, {town}", "{street} {n}\n{town}", "{street} {n}-%, {town}", "Postbus %##, {town}"],
        "phones": ["020 6## ####", "06-2#######", "+31 6 2### ####", "+31 (0)30 2## ####", "010-4######"],
    },
    "IN": {
        "streets": INDIAN_STREETS,
        "towns": ["Bengaluru 5600##", "Chennai - 6000##", "Mumbai, Maharashtra 4000##", "New Delhi 1100##",
                  "Pune 411 0##", "Hyderabad-5000##"],
        "forms": ["{n}, {street}, {town}", "Flat No. %, {n} {street}, {town}", "No. {n}, {street}, {town}",
                  "Plot No. {n}, {street}, {town}",
                  "{n}/% {street}\n{town}", "H.No. %-%-##, {street}, {town}"],
        "phones": ["+91 98### #####", "+91-22-2###-####", "080-2### ####", "98########", "+91 9### ######",
                   "044 2### ####"],
    },
    "ES": {
        "streets": ["Calle Mayor", "Avenida de la Constitución", "C/ Alcalá", "Paseo del Prado", "Plaza de España",
                    "Calle San Juan"],
        "towns": ["280## Madrid", "080## Barcelona", "410## Sevilla", "460## Valencia"],
        "forms": ["{street} {n}, {town}", "{street}, {n}, %º @, {town}", "{street}, nº {n}\n{town}"],
        "phones": ["91 4## ## ##", "+34 6## ### ###", "+34 91 4## ## ##", "6## ## ## ##"],
    },
    "IT": {
        "streets": ["Via Roma", "Piazza Garibaldi", "Viale dei Mille", "Corso Italia", "Via San Martino",
                    "Vicolo del Forno"],
        "towns": ["001## Roma RM", "201## Milano (MI)", "50123 Firenze", "80132 Napoli NA"],
        "forms": ["{street} {n}, {town}", "{street}, {n}\n{town}", "{street} n. {n}, {town}"],
        "phones": ["+39 06 4######", "02 4### ####", "347 5######", "+39 347 ### ####"],
    },
    "SE": {
        "streets": ["Storgatan", "Kungsvägen", "Björkstigen", "Norra Hamngatan"],
        "towns": ["111 ## Stockholm", "413 ## Göteborg", "75# 31 Uppsala", "211## Malmö"],
        "forms": ["{street} {n}, {town}", "{street} {n}\n{town}", "{street} {n} B, {town}"],
        "phones": ["08-4## ## ##", "070-4## ## ##", "+46 70 4## ## ##", "+46 (0)31 4## ## ##"],
    },
    "FI": {
        "streets": ["Kauppakatu", "Mannerheimintie", "Rantakuja", "Puistotie"],
        "towns": ["001## Helsinki", "33### Tampere", "20### Turku", "90### Oulu"],
        "forms": ["{street} {n}, {town}", "{street} {n} A %\n{town}"],
        "phones": ["+358 40 4######", "040 4## ####", "09 4## ####"],
    },
    "DK": {
        "streets": ["Nørregade", "Skovvej", "Vesterbrogade", "Strandvejen"],
        "towns": ["2100 København Ø", "8000 Aarhus C", "5000 Odense", "DK-9000 Aalborg"],
        "forms": ["{street} {n}, {town}", "{street} {n}, %. tv\n{town}"],
        "phones": ["+45 33 ## ## ##", "33 ## ## ##", "+45 20######"],
    },
    "IE": {
        "streets": [f"{name} {suffix}" for name in BRITISH_STREETS for suffix in GB_SUFFIXES[:8]],
        "towns": ["Dublin %", "Cork T12 @#W%", "Galway H91 #K%#", "Dublin D02 X###"],
        "forms": ["{n} {street}, {town}", "{n} {street}\n{town}", "Apartment %, {n} {street}, {town}"],
        "phones": ["01 4## ####", "+353 1 4## ####", "087 2## ####", "+353 87 2######"],
    },
    "NZ": {
        "streets": [f"{name} {suffix}" for name in BRITISH_STREETS for suffix in GB_SUFFIXES[:8]],
        "towns": ["Auckland 10##", "Te Aro, Wellington 60##", "Christchurch 80##", "Dunedin 90##"],
        "forms": ["{n} {street}, {town}", "%/{n} {street}\n{town}", "PO Box %####, {town}"],
        "phones": ["09 3## ####", "021 4## ###", "+64 21 4## ###", "0800 4## ###"],
    },
    "BR": {
        "streets": ["Rua Augusta", "Avenida Paulista", "Travessa do Comércio", "Rua Sete de Setembro",
                    "Av. Atlântica", "Praça da Sé"],
        "towns": ["São Paulo - SP, 01###-###", "Rio de Janeiro/RJ 22###-###", "Curitiba, PR", "Salvador - BA"],
        "forms": ["{street}, {n}, {town}", "{street}, {n} - Apto %# - {town}", "{street}, nº {n}, {town}"],
        "phones": ["(11) 9####-####", "+55 21 9####-####", "(41) 3###-####", "+55 (11) 3###-####"],
    },
}  # fmt: skip

ADDRESS_SENTENCES = [
    "Our shop is at {address} and opens at nine.", "Address: {address}", "Please send the parcel to {address}.",
    "{name}\n{address}", "She has lived at {address} since 2014.", "Ship to:\n{name}\n{address}\nThank you!",
    "The practice moved from the old town to {address} last year.", "Visit us: {address}",
    "The house at {address} was sold for $450,000.", "Contact\n{name}\n{address}\nPhone: {phone}",
    "The meeting takes place at {address}, room 3.", "{name}, {address}, {phone}", "Registered office: {address}",
    "Write to {name}, {address}.", "My new address is {address}", "Billing address: {name}\n   {address}",
    "Call {phone} or come to {address}.", "Imprint\n{name} Ltd\n{address}\nTel. {phone}",
    "They met in front of {address} in May.", "Location: {address}\nTime: 7 pm",
]  # fmt: skip
PHONE_SENTENCES = [
    "Call me at {phone} after six.", "Phone: {phone}", "You can reach {name} at {phone}.",
    "Tel: {phone} / Fax: {phone}",
    "For bookings ring {phone}.", "Text {name} on {phone}, please.", "{name}, mobile {phone}",
    "Our number is {phone}.",
    "{name}\n{phone}\n", "Customer service ({phone}) is open daily.", "WhatsApp {phone}", "T: {phone}",
    "Questions? {phone} or by mail.", "Leave a message for {name}, {phone}.", "Emergency: {phone}",
    "Office {phone}, ask for {name}.",
]  # fmt: skip
NEGATIVES = [
    "The set costs $1,%##.99, down from $2,###.00.", "It was built between 18## and 19##.",
    "See 201#-0%-1# 12:30:45 in the log.",
    "Order no. %###-###-#### has shipped.", "The final score was 2#-1#, after 1#-1# at half-time.",
    "ISBN {isbn} (hardback), 3## pages.", "John 3:1# and 1 Samuel 17:4# are read.",
    "There are 5 Main points to consider.",
    "In 198# Street artists came to New York.", "The 19## Main Event was held at 7 pm.",
    "It weighs %## 000 kg and is 2# m long.",
    "Population rose from %## ### to %## ### in ten years.", "Version 2.0.1.# replaces version 1.9.#.2.",
    "Section 1.1.2.# of the Act applies.",
    "A total of 1# Court cases and 2# Way points.", "The Boeing 737-%00 carries 18# people over %### km.",
    "Highway 6# runs north for 1## miles.", "The 12 Square metres of 3 Park rangers.",
    "Model XJ-%##-####-## is out of stock.",
    "ISSN ####-###X; vol. 1#, pp. 1##-1##.", "Coordinates 52.5%#### 13.4####.",
    "Between 12 Hill forts and 3 Grove sites lies a road.",
    "Chapter 1#. Place names of the North 18##.", "He finished 2nd in 4:%#.## and 3rd in 10:0#.##.",
    "1 2 3 4 5 6 7 8 9 10 11 12 1#",
    "Account 10%#####, sort code ##-##-##.", "Invoice {ten} was paid on 0%/1#/20##.",
    "Windows 10 Home costs 1## dollars at 5 Star Computers.",
    "Apollo 1# Mission Control, 19##", "Genesis 1 Mose 2, 1# Vers", "Track 0# Via Negativa 3:4#",
    "Platz # in der Bundesliga 20##/##",
    "It took 1#,### steps to Drive home the 3 Main ideas.", "From 19%# to 19%#, 2# Terrace houses were listed.",
    "Your code is ### ###.", "Serial {ten}, part 00-###-####-#.", "UTC 2#:00 on 5 May 20##",
    "The top 1# Road races of 20##",
    "Nos. 1#, 2# and 3# Lane cattle", "at 12 Noon on the 3rd of June, 19##",
]  # fmt: skip


def half_of(items: list, half: Half) -> list:
    return items[half == "report" :: 2]


def filled(pattern: str, draw: random.Random) -> str:
    """The pattern with # and % as digits (% is not zero) and @ as a capital letter."""
    signs = {"#": "0123456789", "%": "123456789", "@": "ABCEHKLNRT"}
    return re.sub("[#%@]", lambda match: draw.choice(signs[match[0]]), pattern)


def isbn(draw: random.Random) -> str:
    digits = filled(draw.choice(("978", "979")) + "#########", draw)
    check = -sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(digits)) % 10
    parts = [digits[:3], digits[3:4], digits[4:7], digits[7:], str(check)]
    return draw.choice(("-", " ", "")).join(parts)


def address(country: dict, half: Half, draw: random.Random) -> str:
    form = draw.choice(country["forms"]).replace("{n}", str(int(10 ** draw.uniform(0, 3.7))))
    street, town = draw.choice(half_of(country["streets"], half)), draw.choice(half_of(country["towns"], half))
    return filled(form.replace("{street}", street).replace("{town}", town), draw)


def labelled_text(half: Half, draw: random.Random) -> dict:
    """One text in the format of presidio-research: {"full_text": …, "spans": [{"entity_type", "start_position",
    …}]}."""
    country = COUNTRIES[draw.choice(list(COUNTRIES))]
    sentence = draw.choice(half_of(draw.choice((ADDRESS_SENTENCES, PHONE_SENTENCES, NEGATIVES, NEGATIVES)), half))
    if "{address}" not in sentence and "{phone}" not in sentence:
        sentence = filled(sentence, draw)
    text, spans = "", []
    for part in re.split(r"(\{\w+\})", sentence):
        if part == "{name}":
            part = f"{draw.choice(half_of(FIRST_NAMES, half))} {draw.choice(half_of(SURNAMES, half))}"
        elif part == "{isbn}":
            part = isbn(draw)
        elif part == "{ten}":
            part = filled("%#########", draw)
        elif part in ("{address}", "{phone}"):
            kind = {"{address}": "STREET_ADDRESS", "{phone}": "PHONE_NUMBER"}[part]
            part = (
                address(country, half, draw)
                if kind == "STREET_ADDRESS"
                else filled(draw.choice(country["phones"]), draw)
            )
            spans.append({"entity_type": kind, "start_position": len(text), "end_position": len(text) + len(part)})
        text += part
    return {"full_text": text, "spans": spans}


def labelled_texts(half: Half, count: int, seed: int = 0) -> list[dict]:
    draw = random.Random(f"{half}-{seed}")
    return [labelled_text(half, draw) for _ in range(count)]
