"""Short texts of our own for comparing tokenizers offline: one text in many languages, and one text of each kind."""

LANGUAGES = {
    "English": (
        "An old mill stands by the river. All day long the water turns its wheel, and the stones grind the grain to "
        "flour. In the evening the miller counts the sacks and goes home."
    ),
    "German": (
        "Am Fluss steht eine alte Mühle. Den ganzen Tag dreht das Wasser ihr Rad, und die Steine mahlen das Korn zu "
        "Mehl. Am Abend zählt der Müller die Säcke und geht nach Hause."
    ),
    "French": (
        "Un vieux moulin se dresse au bord de la rivière. Toute la journée, l'eau fait tourner sa roue, et les meules "
        "broient le grain en farine. Le soir, le meunier compte les sacs et rentre chez lui."
    ),
    "Spanish": (
        "Un viejo molino se alza junto al río. Todo el día el agua hace girar su rueda, y las piedras muelen el grano "
        "hasta hacerlo harina. Por la noche el molinero cuenta los sacos y vuelve a casa."
    ),
    "Polish": (
        "Nad rzeką stoi stary młyn. Przez cały dzień woda obraca jego koło, a kamienie mielą ziarno na mąkę. Wieczorem "
        "młynarz liczy worki i idzie do domu."
    ),
    "Finnish": (
        "Joen rannalla seisoo vanha mylly. Koko päivän vesi pyörittää sen ratasta, ja kivet jauhavat viljan jauhoiksi. "
        "Illalla mylläri laskee säkit ja lähtee kotiin."
    ),
    "Turkish": (
        "Nehrin kıyısında eski bir değirmen duruyor. Su bütün gün çarkını döndürür, taşlar da tahılı un hâline "
        "getirir. Akşam değirmenci çuvalları sayar ve evine gider."
    ),
    "Swahili": (
        "Kando ya mto kuna kinu cha zamani. Mchana kutwa maji huzungusha gurudumu lake, na mawe husaga nafaka kuwa "
        "unga. Jioni mwenye kinu huhesabu magunia na kurudi nyumbani."
    ),
    "Vietnamese": (
        "Bên bờ sông có một cối xay cũ. Suốt ngày nước làm quay bánh xe của nó, và những phiến đá nghiền hạt thành "
        "bột. Buổi tối, người chủ cối xay đếm các bao bột rồi về nhà."
    ),
    "Russian": (
        "На реке стоит старая мельница. Весь день вода вращает её колесо, и жернова перемалывают зерно в муку. Вечером "
        "мельник считает мешки и идёт домой."
    ),
    "Greek": (
        "Δίπλα στο ποτάμι στέκει ένας παλιός μύλος. Όλη μέρα το νερό γυρίζει τον τροχό του και οι πέτρες αλέθουν το "
        "σιτάρι σε αλεύρι. Το βράδυ ο μυλωνάς μετράει τα σακιά και πηγαίνει σπίτι."
    ),
    "Hebrew": (
        "על גדת הנהר עומדת טחנה ישנה. כל היום המים מסובבים את הגלגל שלה, והאבנים טוחנות את התבואה לקמח. בערב הטוחן "
        "סופר את השקים והולך הביתה."
    ),
    "Arabic": (
        "تقف طاحونة قديمة على ضفة النهر. يدير الماء عجلتها طوال النهار، وتطحن الأحجار الحبوب فتصير دقيقًا. وفي المساء "
        "يعدّ الطحّان الأكياس ثم يعود إلى بيته."
    ),
    "Hindi": (
        "नदी के किनारे एक पुरानी चक्की खड़ी है। दिन भर पानी उसका पहिया घुमाता है, और पत्थर अनाज को पीसकर आटा बनाते हैं। "
        "शाम को चक्कीवाला बोरियाँ गिनता है और घर चला जाता है।"
    ),
    "Thai": ("ริมแม่น้ำมีโรงสีเก่าแก่ตั้งอยู่ น้ำหมุนกงล้อของมันตลอดทั้งวัน และหินโม่บดเมล็ดข้าวให้เป็นแป้ง ตกเย็นเจ้าของโรงสีนับกระสอบแล้วกลับบ้าน"),
    "Chinese": "河边立着一座古老的磨坊。水整天推动它的轮子，石磨把谷物磨成面粉。傍晚，磨坊主数完面粉袋，便回家去了。",
    "Japanese": (
        "川のほとりに古い水車小屋が立っている。水は一日中その車輪を回し、石臼が穀物を粉にひく。夕方になると、粉屋は袋を"
        "数えて家に帰る。"
    ),
    "Korean": (
        "강가에 오래된 방앗간이 서 있다. 물은 하루 종일 물레바퀴를 돌리고, 맷돌은 곡식을 빻아 가루로 만든다. "
        "저녁이 되면 방앗간 주인은 자루를 세고 집으로 돌아간다."
    ),
}
"""{language: the same three sentences}; English, the reference, is first."""

KINDS = {
    "prose": (
        "The miller's daughter kept the accounts. She knew which farmer paid in coin and which in eggs, who came early "
        "and who always came when the gate was about to be shut; and when the river froze, as it did one winter in "
        "five, she read aloud by the stove until the ice broke and the wheel began to move again."
    ),
    "Python code": '''\
class Mill:
    """Grinds grain as long as the river runs."""

    def __init__(self, stones: int, kilograms_per_hour: float = 42.5):
        self.stones = stones
        self.kilograms_per_hour = kilograms_per_hour

    def grind(self, sacks: list[float]) -> float:
        """Hours that it takes to grind all `sacks`."""
        total = 0.0
        for kilograms in sacks:
            if kilograms <= 0:
                raise ValueError(f"a sack of {kilograms} kg")
            total += kilograms
        return total / (self.stones * self.kilograms_per_hour)
''',
    "markup": """\
<section id="mill" class="card wide">
  <h2>The mill by the river</h2>
  <p>Open <time datetime="2026-05-01">from May</time>; see the <a href="/visit/hours.html?lang=en">hours</a>.</p>
  <ul>
    <li><img src="wheel.jpg" alt="The wheel" width="640" height="480"></li>
    <li>Flour, 2&nbsp;kg: &euro;3.20</li>
  </ul>
</section>
""",
    "numbers": (
        "3.14159265358979 2.71828182845905 1.41421356237310 1729 65537 299792458 6.02214076e23 -273.15 1,048,576 "
        "2026-05-01 14:08:37 192.168.0.1 +1 555 0100 0x1F4A9 48.8584 2.2945 100000 31415926535 12/24 7:45 99.97%"
    ),
    "white space": """\
month           sacks     kg       hours
---------       -----     ------   -----
January            12      604.0     7.1
February            9      448.5     5.3
March              31     1555.0    18.3


                                total                52
\t\tcarried over\t\t\t\t\t 2607.5



""",
    "random letters": (
        "qvx zkwj oyfbt hplu grmne xcdvi sawq tjzkp ebhyl ufnor mgdcx wivsa kqztj lpbey hrfnu ogmdx cvwis jqkat zlpeb "
        "yhnrf uoxgm dwcvi saqjk tzeblp yfhnr uogxm dcwvi askqj ztpbe lyhfn rugom xdcwv isqak jtzlp ebyhn fruog"
    ),
}
"""{kind: a text of that kind}; the prose is English."""
