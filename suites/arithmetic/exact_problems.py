"""Problems of make_cases.py whose answers are written out."""
# Fixed numbers: neither decimals nor fractions occur in training. (note, answer, steps, ja, en, zh)
EXACT = {
    "decimal": (("+", "20.35", "12.5+7.85", "12.5と7.85の合計を小数で答えてください。", "Work out the total of 12.5 and 7.85.", "求12.5与7.85的和，用小数表示。"),
                ("-", "25.25", "30-4.75", "30mのひもから4.75mを切り取ると、何m残りますか。", "From 30 m of rope, 4.75 m are cut. How many metres remain?", "30米的绳子剪去4.75米，还剩几米？"),
                ("×", "3.6", "2.4×1.5", "縦2.4m、横1.5mの長方形の面積は何平方メートルですか。", "A rectangle measures 2.4 m by 1.5 m. What is its area in square metres?", "长方形长2.4米、宽1.5米，面积是多少平方米？"),
                ("÷", "2.3", "9.2÷4", "9.2リットルのジュースを4人で等分すると、1人何リットルですか。", "4 friends share 9.2 litres equally. How many litres each?", "9.2升果汁由4人平分，每人几升？"),
                ("÷ decimal", "14", "3.5÷0.25", "3.5kgの米を0.25kgずつ袋に入れると、何袋できますか。", "How many bags of 0.25 kg can be filled from 3.5 kg of rice?", "3.5千克大米每0.25千克装一袋，可装几袋？"),
                ("two steps", "6.75", "1.25×7;8.75-2", "1本1.25mの棒を7本つなぎ、つなぎ目で合わせて2m短くなりました。全長は何mですか。", "7 rods of 1.25 m are joined; the joints take away 2 m in all. How long is the whole in metres?", "7根1.25米的杆子接在一起，接头共缩短2米，全长几米？")),
    "fraction": (("+", "5/6", "1/2+1/3", "1/2と1/3を足すといくつですか。分数で答えてください。", "Add 1/2 and 1/3. Answer as a fraction.", "1/2加1/3是多少？请用分数回答。"),
                 ("-", "7/12", "5/6-1/4", "6分の5から4分の1を引くと、いくつ残りますか。分数で答えてください。", "Take 1/4 away from 5/6. Answer as a fraction.", "六分之五减四分之一，也就是5/6-1/4，是多少？请用分数回答。"),
                 ("×", "15/28", "3/4×5/7", "3/4に5/7をかけた値を分数で答えてください。", "What fraction is 3/4 of 5/7?", "5/7的3/4是多少？请用分数回答。"),
                 ("÷", "3/2", "2/3÷4/9", "2/3は4/9の何倍ですか。分数で答えてください。", "How many times does 4/9 go into 2/3? Answer as a fraction.", "2/3是4/9的几倍？请用分数回答。"),
                 ("of a number", "84", "140×3/5", "140人の5分の3は何人ですか。", "How many people are 3/5 of 140?", "140人的3/5是多少人？")),
    "percent": (("of", "1200", "8000×15/100", "8000円の15%はいくらですか。", "How much is 15% of 8000 yen?", "8000元的15%是多少元？"),
                ("less", "2800", "3500×20/100;3500-700", "3500円の品が20%引きになっています。値段はいくらですか。", "A coat of 3500 yen is sold at 20% off. What does it cost?", "原价3500元的衣服降价20%，现价多少元？"),
                ("more", "2520", "2400×5/100;2400+120", "家賃2400円が5%上がりました。新しい家賃はいくらですか。", "A fee of 2400 yen rises by 5%. What is the new fee?", "费用2400元上涨5%，现在是多少元？"),
                ("tax", "4752", "4400×8/100;4400+352", "税抜き4400円の品に8%の消費税がかかります。税込みの値段はいくらですか。", "A bill of 4400 yen plus 8% tax comes to how much?", "不含税4400元，税率8%，含税多少元？"),
                ("twice", "1071", "1200×15/100;1200-180;1020×5/100;1020+51", "1200円の品を15%引きにし、その後5%値上げしました。いくらになりましたか。", "A price of 1200 yen is cut by 15% and then raised by 5%. What is it now?", "1200元的商品先降价15%，再涨价5%，现在多少元？"),
                ("share", "540", "1500×36/100", "1500人のうち36%が自転車で通います。自転車で通う人は何人ですか。", "36% of 1500 pupils come by bicycle. How many is that?", "1500名学生中有36%骑车上学，是多少人？"))}
