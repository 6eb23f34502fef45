"""Patterns of words in postal addresses: streets, towns, postcodes, units, and announcements."""

from data_prep.pii.places import COVERED

FREE = rf"(?![\w{COVERED}])"
NUMBER = r"[0-9]{0,4}+(?:[-/][0-9]{1,4}){0,2}+[A-Za-z]?+"
"""A house number without its first digit: "12", "12a", "12-14", "4/12", "5-7-30"."""
CAPITAL = r"[^\W\da-z_ß-öø-ÿα-ωά-ώа-џ]"
"""Any letter except lower-case ones of ASCII, Latin-1, Greek and Cyrillic."""
NAME = CAPITAL + r"[\w.'’-]{0,24}+"
"""One word of a name of several words."""
LAST = CAPITAL + r"[\w-]{0,24}+(?:['’][\w-]{1,24}+)?+"
"""Last word of a name, without a period."""
PARTICLE = (
    r"(?:(?:de la|de los|de las|dell[ao]|dei|degli|del|d[aeiou]s?|la|le|les|los|las|al|von|van|der|den|dem|und|y|e|i|"
    r"im|am|an der|upon|on|sur)(?= )|d’|d'|l’|l')"
)
ORDINAL = r"[0-9]{1,3}(?:st|nd|rd|th)"

STREET = (
    r"(?:Street|Avenue|Boulevard|Road|Lane|Drive|Terrace|Crescent|Parkway|Turnpike|Mews|Esplanade|"
    r"(?:Ave|Blvd|Rd|Ln|Pkwy|Tce|Cres|Str)\b\.?|(?:St|Dr|Ct)\b\.?(?=[^\w .]|\Z| [a-zß-ÿ]))"
)
PERHAPS_STREET = (
    r"(?:Court|Place|Square|Way|Circle|Close|Trail|Highway|Row|Walk|Gardens|Grove|Hill|Loop|Run|Path|Pike|Ridge|"
    r"Crossing|Cove|Point|Park|Bend|Pass|Alley|Mall|Rise|View|Wharf|Quay|Green|Parade|Plaza|Broadway|Nagar|Marg|Salai|"
    r"Cross|Layout|Colony|Sector|Chowk|Vihar|Bagh|(?:St|Dr|Ct|Pl|Sq|Cir|Hwy|Trl|Pde)\b\.?"
    r"|(?:Highway|Hwy|Route|Rte|Road) [0-9]{1,4})"
)
"""Street words that often end other names ("2 Supreme Court"), so a unit, town or postcode must follow."""
RUE = (
    "rue|avenue|av\\.|boulevard|bd|place|chemin|allée|impasse|quai|cours|route|square|Rue|Avenue|Boulevard|Place|Chemin|"
    "Allée|Impasse|Quai|Route"
)
VIA = (
    "Via|Viale|Vicolo|Piazza|Piazzale|Piazzetta|Corso|Strada|Largo|Calle|C/|Avenida|Avda|Av|Paseo|Plaza|Rambla|Carrer|"
    "Camino|Rua|Rúa|Travessa|Praça|Estrada|Alameda|Rue|Ulica|Ulitsa|ul|Улица|улица|ул|проспект"
)
ENDINGS = ("straße", "strasse", "Straße", "Strasse", "str.", "allee", "Allee", "gasse", "platz", "Platz", "ufer", "weg",
           "damm", "chaussee", "straat", "laan", "gracht", "plein", "singel", "steeg", "gatan", "vägen", "gränd",
           "stigen", "veien", "vej", "stræde", "gata", "stræti", "vegur", "katu", "kuja", "utca", "tänav")  # fmt: skip

STATE = (
    "(?:A[AEKLPRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEGINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|"
    "W[AIVY]|SP|R[JS]|PR|BA|AB|BC|MB|N[BLS]|ON|PE|QC|SK|ACT|NSW|NT|QLD|SA|TAS|VIC)"
)
REGION = (
    "(?:Alabama|Alaska|Arizona|Arkansas|California|Colorado|Connecticut|Delaware|Florida|Georgia|Hawaii|Idaho|Illinois|"
    "Indiana|Iowa|Kansas|Kentucky|Louisiana|Maine|Maryland|Massachusetts|Michigan|Minnesota|Mississippi|Missouri|"
    "Montana|Nebraska|Nevada|New (?:Hampshire|Jersey|Mexico|York)|(?:North|South) (?:Carolina|Dakota)|Ohio|Oklahoma|"
    "Oregon|Pennsylvania|Rhode Island|Tennessee|Texas|Utah|Vermont|(?:West )?Virginia|Washington|Wisconsin|Wyoming|"
    "Alberta|British Columbia|Manitoba|New Brunswick|Nova Scotia|Ontario|Québec|Quebec|Saskatchewan)"
)
COUNTRY = (
    "(?:Australia|Austria|Belgium|Brazil|Canada|Cyprus|Denmark|Deutschland|England|Estonia|Finland|France|Germany|"
    "Greece|Hungary|Iceland|India|Ireland|Italy|Netherlands|New Zealand|Norway|Poland|Portugal|Scotland|Slovenia|"
    "South Africa|Spain|Sweden|Switzerland|United Kingdom|United States|Uruguay|Wales|U\\.?K|U\\.?S(?:\\.?A)?)"
)
"""Countries that can end an address, with or without a postcode."""
POSTCODE = (
    r"(?:[0-9]{5}(?:-[0-9]{3,4})?+|[1-9][0-9]{2} ?[0-9]{3}(?! ?[0-9-])|[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}"
    r"|[A-Z][0-9][A-Z][ -]?[0-9][A-Z][0-9]|[A-Z][0-9][0-9W] ?[A-Z0-9]{4})" + FREE
)
"""Postcodes of the USA and Brazil, India, Great Britain, Canada, Ireland."""
SHORT_POSTCODE = r"(?!1[5-9][0-9]{2}|20[0-3][0-9])[0-9]{4}" + FREE
"""Postcode of Australia or New Zealand, except possible years."""
BREAK = r"(?:[ ]?[,;/–-]|[ ]?\n>?)?+[ ,\n]{0,6}+(?<=[ ,;/–\n>-])"
"""Separator of the parts of an address: a comma, a line end (in quoted mail too), or only a space."""
QUARTER = rf"(?: (?:[NS][EW]?|[EW]|North|South|East|West){FREE}\.?)?+"
UNIT_NUMBER = rf"(?:[A-Z]?-?[0-9]{{1,5}}+[A-Z]?|[A-Z]){FREE}"
UNIT = (
    rf"{BREAK}(?:(?:(?:Apt|Apto|Apartment|Suite|Ste|Unit|Flat|Floor|Room|Box)\b\.?|#) ?{UNIT_NUMBER}"
    rf"|[0-9]{{1,3}}(?:st|nd|rd|th) [Ff]loor|[0-9]{{1,2}}[º°ª]\.?(?: [A-Z]{FREE})?|[0-9]{{1,2}}\. (?:tv|th|mf){FREE})"
)
SUITE = rf"{BREAK}(?:Apt|Apto|Apartment|Suite|Ste)\b\.? {UNIT_NUMBER}"
CONTINENTAL = (
    rf"[ ]?[,\n][ ]{{0,6}}(?:[A-Z]{{1,2}}-)?"
    rf"(?:[0-9]{{3}} [0-9]{{2}}|[0-9]{{5}}|(?!1[5-9][0-9]{{2}}|20[0-3][0-9])[0-9]{{4}}"
    rf"|[1-9][0-9]{{3}} ?[A-Z]{{2}}|DK-[0-9]{{4}})"
    rf"[ ]{{1,2}}{LAST}(?:(?: {PARTICLE})? {LAST}){{0,2}}+"
)
"""A postcode and a town: "10115 Berlin", "1015 CJ Amsterdam", "111 22 Stockholm"."""
NAMES_OF_TOWN = rf"(?: in)?(?:{BREAK}{NAME}(?: {PARTICLE}(?= ))?){{0,4}}?{BREAK}"
ANY_STATE = rf"(?<=[,\n] )[A-Z]{{2}}(?={BREAK}[0-9]{{5}}|{BREAK}{COUNTRY})"
"""Any two capitals between a comma and a postcode or country."""
AND_POSTCODE = rf"(?:{BREAK}(?:{POSTCODE}|{SHORT_POSTCODE}))?+"
TOWN = (
    rf"(?:{CONTINENTAL}|{NAMES_OF_TOWN}(?:(?:{STATE}|{ANY_STATE}){FREE}\.?{AND_POSTCODE}|{POSTCODE}"
    rf"|(?<=[^\W\d_] ){SHORT_POSTCODE}|Dublin [0-9]{{1,2}}{FREE}"
    rf"|(?:{REGION}|{COUNTRY}){FREE}(?!{BREAK}{STATE}{FREE}){AND_POSTCODE})(?:{BREAK}{COUNTRY}{FREE}{AND_POSTCODE})?+)"
)
SURE_TOWN = (
    rf"(?=[ ]?[,\n])(?:{BREAK}{NAME}){{1,4}}?{BREAK}"
    rf"(?:(?:{STATE}|{REGION}){FREE}\.?{BREAK}(?:{POSTCODE}|{SHORT_POSTCODE})|(?![0-9]){POSTCODE})"
)
"""A town with state and postcode, or a postcode with letters, after a mark or a line end. A name between a number and
this is a street, even without a street word ("4978 Chapman Bypass, Salem, OR 97301")."""
SECOND_STREET = rf"(?: {NAME}){{1,2}}{SUITE}"
"""The second street in "14 Crown Street Market Square, Suite 3"."""
PLACE = rf"(?:(?:{SECOND_STREET})?+(?:{UNIT}){{0,2}}+{TOWN}|(?:{SECOND_STREET})?+(?:{UNIT}){{1,2}}+|{SECOND_STREET})"
ANNOUNCED = (
    r"(?:\b[Aa]ddress(?:es)?(?: is| are|:| to)?(?: it is| the corner of)?|\b[Ll]iv(?:e|es|ed|ing) (?:at|in|on)|"
    r"\b[Ll]ocated (?:at|in|on)|\b[Rr]esid(?:e|es|ed|ing) at|\b[Mm]eet (?:me|us|you) (?:at|in)|\b[Ll]ocation:|"
    r"\b[Oo]ffices? (?:is|are|was|were)? ?(?:at|in)|\b[Oo]ffice:|"
    r"\b(?:restaurant|house|shop|store) (?:is|was) (?:at|in)|"
    r"\b(?:sent|[Ss]hip(?:ped)?|[Dd]eliver(?:ed)?|moved) to:?|\bcorner of|\baddress with)\s{1,6}\Z"
)
"""Words before an address, which is then a number and a name, or a name and a number."""
