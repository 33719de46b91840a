#!/usr/bin/env python3
"""Writes cases.csv of the facts suite, the same bytes every time.

    python3 suites/facts/make_cases.py            # from the project's root, or from anywhere

The gated cases are facts of the bundled model's training recipe (golden/micro-glm/recipe/gen.py: FACTS) in its
phrasings (FACT_Q): it is a closed world. OTHER_WORDS asks for facts of the recipe in words it never used, WORLD for
facts it never saw; neither is gated. Each case seeds its own generator with its own name, so adding a case changes no
other. The script refuses an accepted answer that the question itself contains: echoing must not score.
"""
import csv
import random
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "golden" / "micro-glm" / "recipe"))
sys.dont_write_bytecode = True
import gen  # noqa: E402

SEED = "facts/1"
LANGUAGES = ("ja", "en", "zh")
COLUMNS = ("id", "cluster", "language", "kind", "profile", "prompt", "messages", "answer", "steps", "note", "gated", "scoring")

# Facts of the recipe by their English name (the country, the element, the phrase, the word). Left out are those with a
# short answer that other words contain (H, He, Na), an answer that the question names (太陽系の中心 → 太陽), a colour
# or season with too many spellings, and what can be argued about (the third highest mountain of Japan is a tie).
CAPITALS = ("Japan", "France", "Germany", "Italy", "Spain", "Canada", "Australia", "Brazil", "Argentina", "Russia", "India",
            "South Korea", "Thailand", "Vietnam", "Egypt", "Kenya", "Turkey", "Greece", "Portugal", "Sweden", "Norway",
            "Finland", "Poland", "Austria", "Hungary", "Peru", "Cuba", "Indonesia")
ELEMENTS = ("iron", "copper", "zinc", "silver", "gold", "mercury", "lead", "magnesium")
GEOGRAPHY = ("the highest mountain in Japan", "the second highest mountain in Japan", "the highest mountain in the world",
             "the highest mountain in Africa", "the longest river in Japan", "the second longest river in Japan",
             "the largest lake in Japan", "the longest river in China", "the second longest river in China",
             "the longest river in Africa", "the largest ocean on Earth", "the second largest ocean on Earth",
             "the largest continent", "the largest country in the world by area", "the smallest country in the world",
             "the largest island in Japan", "the main language of Brazil", "the main language of Austria")
SCIENCE = ("the largest planet in the solar system", "the planet closest to the Sun", "the second planet from the Sun",
           "the fourth planet from the Sun", "the sixth planet from the Sun", "the planet farthest from the Sun",
           "the largest animal on Earth", "the fastest land animal", "the tallest animal", "the largest bird",
           "the hardest natural material", "the chemical formula of table salt",
           "the gas that people need to breathe", "the organ that pumps blood", 'the author of "Kokoro"',
           'the author of "Hamlet"')
NUMBERS = ("the number of days in a week", "the number of months in a year", "the number of hours in a day",
           "the number of minutes in an hour", "the number of days in a leap year", "the number of legs of a spider",
           "the number of legs of an insect", "the number of sides of a triangle",
           "the boiling point of water in degrees Celsius", "the freezing point of water in degrees Celsius")
CALENDAR = ("the day after Monday", "the day after Thursday", "the day after Saturday", "the first month of the year",
            "the month after March", "the month after September")
OPPOSITES = ("hot", "big", "bright", "heavy", "near", "strong", "wide", "day")

# Other accepted spellings of the recipe's answers.
ALSO = {"Mount Fuji": "Mt. Fuji|Mt Fuji|Fujisan", "富士山": "ふじさん", "Mount Kita": "Mt. Kita|Mt Kita|Kitadake|Kita-dake", "北岳": "きただけ",
        "Mount Everest": "Mt. Everest|Everest", "エベレスト": "エヴェレスト|チョモランマ", "珠穆朗玛峰": "珠峰|圣母峰",
        "Mount Kilimanjaro": "Mt. Kilimanjaro|Kilimanjaro", "乞力马扎罗山": "乞力马扎罗", "the Shinano River": "Shinano",
        "信濃川": "信濃", "信浓川": "信浓", "the Tone River": "Tone River|Tonegawa", "Lake Biwa": "Biwa", "琵琶湖": "びわ湖",
        "the Yangtze River": "Yangtze|Chang Jiang|Changjiang", "長江": "揚子江", "长江": "扬子江", "the Yellow River": "Yellow River|Huang He|Huanghe",
        "the Nile": "Nile", "ナイル川": "ナイル", "the Pacific Ocean": "Pacific", "the Atlantic Ocean": "Atlantic",
        "アジア": "ユーラシア", "Asia": "Eurasia", "亚洲": "亚细亚|欧亚", "Russia": "Russian Federation", "Vatican City": "Vatican|Holy See",
        "バチカン市国": "バチカン|ヴァチカン", "梵蒂冈": "梵谛冈", "the blue whale": "blue whale", "シロナガスクジラ": "しろながすくじら", "蓝鲸": "藍鯨",
        "the cheetah": "cheetah", "the giraffe": "giraffe", "长颈鹿": "長頸鹿", "キリン": "きりん", "the ostrich": "ostrich", "ダチョウ": "だちょう|駝鳥",
        "ダイヤモンド": "ダイアモンド|金剛石", "钻石": "金刚石", "the heart": "heart", "Natsume Soseki": "Soseki|Sōseki|Natsume Sōseki",
        "夏目漱石": "漱石", "William Shakespeare": "Shakespeare", "シェイクスピア": "シェークスピア", "ニューデリー": "デリー", "New Delhi": "Delhi",
        "新德里": "德里", "ウィーン": "ヴィーン", "Brasília": "Brasilia", "一月": "1月", "四月": "4月", "十月": "10月", "星期二": "周二|礼拜二",
        "星期五": "周五|礼拜五", "星期日": "星期天|周日|礼拜天", "火曜日": "火曜", "金曜日": "金曜", "日曜日": "日曜", "NaCl": "氯化钠",
        "暗い": "くらい", "遠い": "とおい", "弱い": "よわい", "狭い": "せまい", "軽い": "かるい", "小さい": "ちいさい", "寒い": "さむい|冷たい", "右": "みぎ",
        "small": "little", "dark": "dim", "黑夜": "夜|晚", "夜": "よる", "冷": "寒", "暗": "黑",
        "far": "distant", "ポルトガル語": "ポルトガル", "ドイツ語": "ドイツ", "葡萄牙语": "葡语|葡萄牙文", "德语": "德文",
        "ハノイ": "河内", "首尔": "汉城"}

# Facts of the recipe, words that it never used. (name, ja, en, zh; answers ja, en, zh)
OTHER_WORDS = (
    ("second-mountain", "富士山の次に標高が高い日本の山の名前を挙げてください。", "Which Japanese peak comes right after Fuji in height?", "在日本，仅次于富士山的高峰叫什么名字？",
     "北岳|きただけ|Kita", "Kita-dake|Kitadake|Mount Kita|Mt. Kita|Kita", "北岳|北嶽"),
    ("capital-australia", "シドニーがオーストラリアの首都だと友人が言いますが、違います。正しい都市名を一語で答えて。", "My friend says Sydney is where Australia's federal government sits. Which city is it really?", "朋友说悉尼是澳大利亚的首都。实际上联邦政府设在哪座城市？",
     "キャンベラ", "Canberra", "堪培拉|坎培拉"),
    ("capital-turkey", "トルコの大統領府や国会がある都市はどこでしょう。", "In which city does the Turkish parliament sit?", "土耳其的议会设在哪座城市？", "アンカラ", "Ankara", "安卡拉"),
    ("capital-brazil", "1960年に新しく作られ、ブラジルの政府が移った都市はどこですか。", "Which planned city became the seat of Brazil's government in 1960?", "1960年巴西政府迁到了哪座新建的城市？", "ブラジリア", "Brasília|Brasilia", "巴西利亚"),
    ("capital-canada", "トロントでもモントリオールでもない、カナダ連邦議会のある街は？", "Not Toronto, not Montreal: where does Canada's federal parliament meet?", "不是多伦多也不是蒙特利尔，加拿大联邦议会在哪座城市？", "オタワ", "Ottawa", "渥太华"),
    ("capital-vietnam", "ホー・チ・ミン廟がある、ベトナム北部の都市の名を教えて。", "Which northern Vietnamese city is the country's seat of government?", "越南政府所在的北部城市叫什么？", "ハノイ", "Hanoi", "河内"),
    ("symbol-gold", "周期表で金はどんなアルファベット二文字で表されますか。", "Which two letters stand for gold in the periodic table?", "元素周期表里，金用哪两个字母表示？", "Au", "Au", "Au"),
    ("symbol-iron", "元素番号26の金属、鉄を記号で書くと？", "Element 26 is iron. How is it abbreviated?", "26号元素铁的符号怎么写？", "Fe", "Fe", "Fe"),
    ("formula-water", "水の分子を化学式で表してください。", "Write down the molecular formula of water.", "请写出水分子的化学式。", "H2O|H₂O", "H2O|H₂O", "H2O|H₂O"),
    ("formula-co2", "ドライアイスは何という物質の固体ですか。化学式で書いてください。", "Dry ice is the solid form of which compound? Give its formula.", "干冰是哪种化合物的固体？请写化学式。", "CO2|CO₂", "CO2|CO₂", "CO2|CO₂"),
    ("planet-largest", "太陽のまわりを回る星のうち、直径がいちばん大きいものはどれ？", "Among the worlds circling our Sun, which has the greatest diameter?", "绕太阳运行的行星中，哪一颗直径最大？", "木星", "Jupiter", "木星"),
    ("planet-rings", "みごとな環で知られ、太陽から数えて六つ目にある天体は？", "Famous for its bright rings, it is sixth out from our star. Name it.", "以美丽的光环闻名、从太阳数起排第六的天体是哪个？", "土星", "Saturn", "土星"),
    ("animal-whale", "体重が100トンを超えることもある、史上最大級の海の哺乳類は何ですか。", "Which sea mammal, at over 100 tonnes, outweighs every other creature?", "体重可超过100吨的海洋哺乳动物是什么？", "シロナガスクジラ", "blue whale", "蓝鲸|藍鯨"),
    ("river-africa", "エジプトを南から北へ流れて地中海に注ぐ大河は？", "Which great river crosses Egypt from south to north into the Mediterranean?", "由南向北流经埃及、注入地中海的大河叫什么？", "ナイル", "Nile", "尼罗河|尼羅河"),
    ("lake-japan", "滋賀県にある、国内最大の湖の名は？", "Name the huge lake in Shiga Prefecture.", "位于滋贺县的日本第一大湖叫什么？", "琵琶湖|びわ湖|びわこ", "Biwa", "琵琶湖"),
    ("blood-organ", "全身に血を巡らせるポンプの役割を果たしている器官は？", "Which part of the body acts as the pump of the circulation?", "在循环系统中起泵的作用的是哪个器官？", "心臓|しんぞう", "heart", "心脏|心臟"),
    ("kokoro", "「先生と私」から始まる長編小説『こころ』は誰が書きましたか。", "Who wrote the Japanese novel whose first part is called 'Sensei and I'?", "以《先生和我》为第一部的日本小说《心》是谁写的？", "漱石", "Soseki|Sōseki", "漱石"),
    ("leap-year", "2月が29日まである年は、全部で何日になりますか。", "When February has 29 days, how long is that year in days?", "二月有29天的年份，全年一共多少天？", "366", "366", "366"),
    ("hexagon", "蜂の巣の部屋は何角形ですか。辺の本数を数字で答えて。", "How many edges does a honeycomb cell have, seen from the front? Answer in digits.", "从正面看，蜂巢的一个巢室有几条边？请用数字回答。", "6", "6", "6"),
    ("photosynthesis", "植物が光合成のために葉の気孔から取り入れるガスは？", "Which gas enters leaves through the stomata for photosynthesis?", "植物为了光合作用从气孔吸入哪种气体？", "二酸化炭素|CO2|CO₂", "carbon dioxide|CO2|CO₂", "二氧化碳|CO2|CO₂"),
)

# Facts that the recipe does not have.
WORLD = (
    ("capital-switzerland", "スイスの連邦政府が置かれている都市は？", "Which city hosts the federal government of Switzerland?", "瑞士联邦政府设在哪座城市？", "ベルン", "Bern|Berne", "伯尔尼"),
    ("capital-new-zealand", "ニュージーランドの首都を答えてください。", "What is the capital of New Zealand?", "新西兰的首都是哪里？", "ウェリントン", "Wellington", "惠灵顿"),
    ("capital-mongolia", "モンゴルの首都はどこですか。", "What is the capital of Mongolia?", "蒙古国的首都是哪里？", "ウランバートル", "Ulaanbaatar|Ulan Bator", "乌兰巴托"),
    ("capital-ireland", "アイルランドの首都はどこですか。", "What is the capital of Ireland?", "爱尔兰的首都是哪里？", "ダブリン", "Dublin", "都柏林"),
    ("capital-chile", "チリの首都はどこですか。", "What is the capital of Chile?", "智利的首都是哪里？", "サンティアゴ|サンチアゴ", "Santiago", "圣地亚哥"),
    ("capital-nepal", "ネパールの首都はどこですか。", "What is the capital of Nepal?", "尼泊尔的首都是哪里？", "カトマンズ|カトマンドゥ", "Kathmandu|Katmandu", "加德满都"),
    ("second-city-japan", "市町村のうち、人口が東京23区に次いで多い日本の都市は？", "Which Japanese city has the largest population after Tokyo?", "日本人口仅次于东京的城市是哪座？", "横浜", "Yokohama", "横滨|橫濱"),
    ("longest-strait-bridge", "本州と四国を淡路島経由で結び、長く世界最長のつり橋だった橋は？", "Which suspension bridge links Honshu with Awaji Island?", "连接日本本州和淡路岛的悬索桥叫什么？", "明石海峡大橋", "Akashi", "明石海峡"),
    ("deepest-lake", "世界で最も深い湖の名前は？", "Name the deepest lake in the world.", "世界上最深的湖是哪一个？", "バイカル", "Baikal", "贝加尔"),
    ("deepest-lake-japan", "秋田県にある、日本で最も深い湖は？", "Which lake in Akita is the deepest in Japan?", "日本最深的湖位于秋田县，叫什么？", "田沢湖", "Tazawa", "田泽湖|田澤湖"),
    ("south-america-river", "流域面積が世界最大の川は？", "Which river has the largest drainage basin?", "流域面积世界第一的河流是哪条？", "アマゾン", "Amazon", "亚马孙|亚马逊"),
    ("silicon-symbol", "元素記号Wで表される金属は何ですか。", "Which metal has the chemical symbol W?", "元素符号W代表哪种金属？", "タングステン", "tungsten|wolfram", "钨"),
    ("tin-symbol", "スズの元素記号を書いてください。", "Give the chemical symbol of tin.", "请写出锡的元素符号。", "Sn", "Sn", "Sn"),
    ("light-speed", "真空中の光の速さは秒速およそ何万kmですか。整数で答えてください。", "About how many thousand kilometres does light travel per second in vacuum? Give a round number in thousands.", "真空中光速约为每秒多少万千米？请答整数。", "30", "300", "30"),
    ("dna-bases", "DNAの塩基のうち、RNAではウラシルに置き換わるものは？", "Which base of DNA is replaced by uracil in RNA?", "DNA中的哪种碱基在RNA里被尿嘧啶取代？", "チミン", "thymine", "胸腺嘧啶"),
    ("blood-type-nobel", "ABO式血液型を発見したオーストリア出身の医師の姓は？", "Who discovered the ABO blood groups? Surname only.", "是谁发现了ABO血型？请只写姓氏。", "ラントシュタイナー|ランドシュタイナー", "Landsteiner", "兰德施泰纳|兰茨泰纳|兰德斯坦纳"),
    ("pythagoras", "直角三角形の三辺の関係 a²+b²=c² は誰の定理と呼ばれますか。", "Whose theorem says a² + b² = c² for right triangles?", "直角三角形的 a²+b²=c² 在西方以谁的名字命名？", "ピタゴラス|三平方", "Pythagoras|Pythagorean", "毕达哥拉斯"),
    ("relativity", "特殊相対性理論を1905年に発表した物理学者は？", "Which physicist published special relativity in 1905?", "1905年发表狭义相对论的物理学家是谁？", "アインシュタイン", "Einstein", "爱因斯坦"),
    ("penicillin", "世界初の抗生物質ペニシリンを見つけた細菌学者は？", "Which bacteriologist discovered penicillin?", "青霉素是哪位细菌学家发现的？", "フレミング", "Fleming", "弗莱明"),
    ("first-shogun-edo", "江戸幕府を開いた初代将軍は誰ですか。", "Who was the first Tokugawa shogun?", "江户幕府的第一代将军是谁？", "家康", "Ieyasu", "家康"),
    ("genji", "『源氏物語』の作者は？", "Who wrote The Tale of Genji?", "《源氏物语》的作者是谁？", "紫式部", "Murasaki", "紫式部"),
    ("snow-country", "『雪国』『伊豆の踊子』でノーベル文学賞を受けた作家は？", "Which Japanese novelist wrote Snow Country and won the Nobel Prize in 1968?", "写了《雪国》并获得诺贝尔文学奖的日本作家是谁？", "川端", "Kawabata", "川端"),
    ("red-mansions", "『紅楼夢』の作者は？", "Who wrote Dream of the Red Chamber?", "《红楼梦》的作者是谁？", "曹雪芹", "Cao Xueqin|Tsao Hsueh-chin", "曹雪芹"),
    ("tang-poet", "「静夜思」を詠んだ唐の詩人は？", "Which Tang poet wrote 'Quiet Night Thought' (静夜思)?", "《静夜思》是哪位唐代诗人写的？", "李白", "Li Bai|Li Po|Li Bo", "李白"),
    ("don-quixote", "『ドン・キホーテ』を書いたスペインの作家は？", "Who wrote Don Quixote?", "《堂吉诃德》的作者是谁？", "セルバンテス", "Cervantes", "塞万提斯"),
    ("guernica", "大作『ゲルニカ』を描いた画家は？", "Who painted Guernica?", "名画《格尔尼卡》的作者是谁？", "ピカソ", "Picasso", "毕加索"),
    ("moon-first", "1969年、人類で初めて月面に降り立ったのは誰ですか。", "Who was the first human to walk on the Moon?", "1969年第一个踏上月球的人是谁？", "アームストロング", "Armstrong", "阿姆斯特朗"),
    ("great-wall-emperor", "中国を初めて統一し、皇帝を名乗った人物は？", "Who first unified China and took the title of emperor?", "第一个统一中国并称皇帝的人是谁？", "始皇", "Qin Shi Huang|Shihuang|Shi Huangdi|First Emperor of Qin", "秦始皇|嬴政"),
    ("berlin-wall", "ベルリンの壁が崩壊したのは西暦何年ですか。", "In which year did the Berlin Wall fall?", "柏林墙是哪一年倒塌的？", "1989", "1989", "1989"),
    ("meiji", "明治元年は西暦では何年ですか。", "Which year of the Common Era was Meiji 1?", "明治元年是公元哪一年？", "1868", "1868", "1868"),
    ("reiwa", "平成の次の元号は？", "Which Japanese era followed Heisei?", "日本平成之后的年号是什么？", "令和", "Reiwa", "令和"),
    ("chess-pieces", "将棋で、王将の隣に置かれ、成ることができない駒は？", "In shogi, which piece besides the king can never be promoted? Give its English name.", "日本将棋中，除王将外不能升变的棋子叫什么？", "金", "Gold", "金"),
    ("go-board", "囲碁の正式な盤は縦横何本の線で作られていますか。数字で答えてください。", "How many lines run in each direction on a full-size Go board? Answer in digits.", "正式的围棋棋盘纵横各有多少条线？请用数字回答。", "19", "19", "19"),
)


def rng_of(*name):
    return random.Random("/".join(map(str, (SEED,) + name)))


rows = []


def add(cluster, lang, kind, profile, prompt, answers, note="", gated=True):
    accepted = list(dict.fromkeys(a for a in answers.split("|") if a))
    number = len(accepted) == 1 and re.fullmatch(r"\d+", accepted[0])
    for answer in accepted:  # as a substring, whatever the case: the strictest reading of an echo
        if not number and answer.lower() in prompt.lower():
            sys.exit(f"{cluster}-{lang}: the question contains its answer {answer!r}: {prompt}")
    rows.append(dict(id=f"{cluster}-{lang}", cluster=cluster, language=lang, kind=kind, profile=profile, prompt=prompt, messages="",
                     answer="|".join(accepted), steps="", note=note, gated="yes" if gated else "no", scoring="number" if number else ""))


def recipe():
    by_name = {}
    for row in gen.CAPITALS:
        by_name[row[0]] = f"the capital of {row[0]}"
    for row in gen.ELEMENTS:
        by_name[row[1]] = f"the chemical symbol of {row[1]}"
    for row in gen.OPPOSITES:
        by_name[row[0]] = f'the opposite of "{row[0]}"'
    facts = {f["en"][0]: f for f in gen.FACTS}
    for kind, names, quick, ci in (("capital", CAPITALS, 5, 12), ("element", ELEMENTS, 2, 4), ("geography", GEOGRAPHY, 4, 8),
                                   ("science", SCIENCE, 4, 8), ("number", NUMBERS, 3, 6), ("calendar", CALENDAR, 2, 3),
                                   ("opposite", OPPOSITES, 2, 4)):
        for i, name in enumerate(names):
            fact = facts[by_name.get(name, name)]
            cluster = f"{kind}-{i + 1:03}"
            for lang in LANGUAGES:
                asked, answer = fact[lang]
                question = rng_of(cluster, lang).choice(gen.FACT_Q[lang]).format(x=asked, X=gen.cap(asked))
                bare = answer.removeprefix("the ")
                also = [a for a in ALSO.get(answer, "").split("|") if a.lower() not in question.lower()]
                add(cluster, lang, kind, "quick" if i < quick else "ci" if i < ci else "nightly", question, "|".join([bare] + also))


def world():
    for kind, table in (("other_words", OTHER_WORDS), ("world", WORLD)):
        for name, *texts in table:
            for lang, question, answers in zip(LANGUAGES, texts[:3], texts[3:]):
                add(f"{kind}-{name}", lang, kind, "full", question, answers, gated=False)


def main():
    recipe()
    world()
    with open(HERE / "cases.csv", "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    main()
