"""One number, however it is written, is one; two numbers are always two."""

import re
import time

import pytest

from gateway.contract import Language
from gateway.verdict.text.meaning import meaning
from gateway.verdict.text.numbers import NUMERALS, in_digits

# By language: a row for each number, with the ways to write it; no two rows are one number.
WRITTEN: dict[Language, str] = {
    "en": """
        0|zero|Zero.
        1|one|**1**
        2|two|2.0|two (2)
        10|ten
        12|twelve|Twelve.|12.0
        20|twenty
        21|twenty-one|twenty one|Twenty-One
        20, 1
        2, 1
        2-1|2 to 1|two to one
        45|forty-five
        99|ninety-nine
        100|one hundred|a hundred
        105|one hundred and five|one hundred five
        100, 5
        121|one hundred twenty-one|one hundred and twenty-one
        200|two hundred
        1000|1,000|one thousand|1,000.0
        1.000
        1,00
        1200|1,200|one thousand two hundred
        3000000|3,000,000|three million
        2003000|two million three thousand
        2500|2,500
        2.500
        0.5|0.50|0.500
        5,0
        3.5|3.50
        3,5
        35|thirty-five
        3-5|3–5|3 - 5|three to five|3~5|between 3 and 5|from three to five
        3, 5
        3 or 5
        3 cm|3cm|3.0 cm|three centimeters|3 centimetres|3.00cm
        3 mm|3mm|three millimetres
        30 mm
        3 um|3 µm|3 μm|three micrometers
        3-5 cm|3cm-5cm|3 cm to 5 cm|between 3 and 5 cm|between three cm and five cm|from 3 to 5 cm
        3 mm to 5 cm
        3 and 5 cm
        >3 cm|> 3 cm|more than 3 cm|greater than three centimeters|larger than 3cm
        <3 cm|< 3 cm|less than 3 cm|smaller than 3 cm
        ≥3 cm|at least 3 cm
        ≤3 cm|at most 3 cm
        ~3 cm|≈ 3 cm|about 3 cm|approximately 3 cm
        not more than 3 cm
        nearly 3 cm
        3.5 cm|3,5 cm|3.5cm
        12 cm|twelve cm
        3 x 4 cm|3x4cm|3 × 4 cm|3 cm x 4 cm|three by four cm
        3 x 4 mm
        4 x 3 cm
        3 x 4 x 5 cm|3 cm x 4 cm x 5 cm
        3%|three percent|3 per cent
        grade 2|grade II|grade two|Grade ii
        grade 3|grade III
        grade 1|grade I
        stage 3a|stage IIIA|Stage IIIa
        stage 3b|stage IIIB
        type 4|type IV
        IV
        II
        iv contrast
        4 contrast
        T1
        T2
        T12
        second|2nd|2nd.
        third|3rd
        twelfth rib|12th rib
        twenty-first rib|21st rib
        12 ribs
        third degree
        3 degrees
        twice
        half
        1/2|½|1⁄2
        ,5 cm
        0.5 cm|.5 cm|.50 cm|½ cm|1/2 cm|1⁄2cm
        1.5 cm|1½ cm|1 1/2 cm|1 ½ centimeters
        11/2 cm
        1-1/2 cm
        3/4 cm|¾ cm
        1.75 cm|1¾ cm
        1/2-3 cm
        1/20 cm
        1 4/2 cm
        2.5 cm cysts
        2 1/2 cm cysts
        <0.5 cm|less than ½ cm
        T1/2
        1/2/2020
        5 cm
        10²
        102|one hundred two
        -5
        >5
        dozens
        hundreds
    """,
    "es": """
        0|cero
        1|uno
        2|dos|2.0|2,0
        6|seis
        10|diez|10,00
        16|dieciséis|dieciseis|diez y seis
        10, 6
        12|doce|Doce.
        21|veintiuno|veintiún|veintiuna|Veintiún.|veinte y uno
        22|veintidós|veintidos
        20|veinte
        31|treinta y uno|treinta y un|Treinta y una
        30, 1
        30 y 2
        30|treinta
        99|noventa y nueve
        100|cien|ciento
        101|ciento uno
        145|ciento cuarenta y cinco
        500|quinientos|quinientas
        1000|1.000|mil
        1,000
        2000|2.000|dos mil
        2300|2.300|dos mil trescientos
        1000000|1.000.000|un millón|Un millon.
        2003000|dos millones tres mil
        primero|primera|1º|1.º|1ª|1ro|1°
        segundo|2º|2.ª|2do
        tercera costilla|3.ª costilla
        tipo 1a
        >3 cm|> 3 cm|más de 3 cm|mayor de tres centímetros
        <3 cm|menos de 3 cm|menor que 3 cm
        ≥3 cm|al menos 3 cm
        ~3 cm|aproximadamente 3 cm
        3.5|3,5|3,50
        3, 5
        35|treinta y cinco
        0.25|0,25|0,250
        3.5 cm|3,5 cm|3.5cm|3,5 centímetros
        3 cm|3cm|tres centímetros|3,0 cm
        20 %|20%|20 por ciento|veinte por ciento
        3-4|3–4|3 a 4|tres a cuatro|de 3 a 4|entre tres y cuatro
        3-4 cm|entre 3 y 4 cm|de 3 cm a 4 cm
        3, 4
        ,5 cm
        5 cm|cinco centímetros
        0.5 cm|0,5 cm|½ cm|1/2 centímetro
        2.5 cm|2,5 cm|2½ cm
        grado 2|grado II|grado dos
        grado 3|grado III
        T1
        T2
    """,
    "zh": """
        0|零|〇
        1|一
        2|二|两|2。|２
        10|十
        11|十一
        12|十二|１２
        20|二十
        21|二十一
        100|一百
        105|一百零五|一百〇五
        150|一百五十
        一百五
        1000|1,000|一千
        2300|两千三百
        3.5|三点五
        二三
        两三个
        十几个
        几十个
        十多个
        2个|两个|二个|兩個
        1个|一个
        12个|十二个
        0 cm|零厘米|0.0厘米
        0.5 cm|½厘米|1/2厘米
        1.5 cm|1½厘米|一点五厘米
        3 cm|三厘米|3厘米|3公分|３ｃｍ|3.0厘米
        3 mm|3毫米
        13 cm|十三厘米
        ,5 cm|，5厘米
        5 cm|五厘米
        30 cm|三十厘米
        3-4 cm|3至4厘米|3到4厘米|3~4厘米|三到四厘米|3厘米到4厘米
        3-4个|三到四个|三至四个|3到4个
        9-12个|九到十二个
        20%|２０％|百分之二十
        0.5%|百分之零点五
        5%|百分之五
        第二|第2
        第十二肋|第12肋
        >3 cm|大于3厘米|超过三厘米
        <3 cm|小于3厘米
        ≥3 cm|至少3厘米
        ~3 cm|约3厘米|大约3cm
        2级|二级|II级|Ⅱ级
        3级|三级
        二万
        20万
    """,
}
ASKED: dict[Language, tuple[str, ...]] = {
    "en": ("", "How large is it?", "Is there an effusion?"),
    "es": ("", "¿Cuánto mide?", "¿Hay derrame pleural?"),
    "zh": ("", "肿块有多大？", "图中有胸腔积液吗？"),
}


def rows(language: Language) -> list[list[str]]:
    return [line.strip().split("|") for line in WRITTEN[language].strip().splitlines()]


@pytest.mark.parametrize("language", WRITTEN)
def test_one_number_is_one_however_it_is_written_and_two_are_two(language):
    for question in ASKED[language]:
        found = {}
        for row in rows(language):
            meant = {meaning(each, language, question) for each in row}
            assert len(meant) == 1, row
            found[meant.pop()] = row
        assert len(found) == len(rows(language))


@pytest.mark.parametrize(
    ("language", "question", "said", "count"),
    [
        ("en", "How many nodules are there?", "There are twelve nodules.", "12"),
        ("en", "How many nodules are there?", "Twenty-one nodules are visible in the image.", "21"),
        ("en", "How many nodules are there?", "The number of nodules is 2.", "2"),
        ("en", "How many nodules are there?", "Number of nodules: 2", "2"),
        ("en", "How many nodules are there?", "There are a total of two (2) nodules.", "2"),
        ("en", "How many masses are there?", "There is one mass.", "1"),
        ("en", "How many masses are there?", "There is a mass in the image.", "1"),
        ("es", "¿Cuántos pulmones hay?", "Hay dos pulmones.", "2"),
        ("es", "¿Cuántos pulmones hay?", "Un pulmón", "1"),
        ("es", "¿Cuántas lesiones hay?", "Hay treinta y una lesiones.", "31"),
        ("es", "¿Cuántas lesiones hay?", "Hay una lesión en la imagen.", "1"),
        ("es", "¿Cuántas lesiones hay?", "No hay ninguna lesión.", "0"),
        ("zh", "图中有几个结节？", "图中有十二个结节。", "12"),
        ("zh", "图中有几个结节？", "两枚", "2"),
        ("zh", "图中有几个结节？", "零个", "0"),
        ("zh", "图中有几个结节？", "一共两个结节", "2"),
        ("zh", "圖中有幾個結節？", "有兩個結節。", "2"),
    ],
)
def test_who_counts_says_a_number_in_any_form(language, question, said, count):
    assert meaning(said, language, question) == (count,)


@pytest.mark.parametrize(
    ("language", "question", "said"),
    [
        ("en", "How many nodules are there?", "2 large nodules"),
        ("en", "How many nodules are there?", "2 left nodules, 3 right nodules"),
        ("en", "How many nodules are there?", "one or two"),
        ("en", "How many nodules are there?", "a few nodules"),
        ("en", "How many nodules are there?", "a nodule on the left"),
        ("en", "How many nodules are there?", "at least a nodule"),
        ("en", "How many nodules are there?", "the second"),
        ("en", "How many nodules are there?", "2, 2"),
        ("es", "¿Cuántos nódulos hay?", "unos dos"),
        ("es", "¿Cuántos nódulos hay?", "dos o tres"),
        ("es", "¿Cuántos nódulos hay?", "Un nódulo izquierdo"),
        ("zh", "图中有几个结节？", "两三个"),
        ("zh", "图中有几个结节？", "十几个"),
        ("zh", "图中有几个结节？", "二十多个"),
    ],
)
def test_what_is_no_mere_number_is_not_taken_for_one(language, question, said):
    first, *others = meaning(said, language, question)
    assert others or not first.isdecimal()


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "zero nine ten nineteen ninety"),
        ("en", "a hundred, a thousand, a million"),
        ("en", "first tenth twentieth"),
        ("en", "stage ii, nerve x"),
        ("es", "cero uno diez noventa doscientas"),
        ("es", "mil, un millon"),
        ("es", "primer decima"),
        ("es", "estadio ii, tipo x"),
        ("zh", "第一、十二、两百、一千"),
        ("zh", "ii级、x型"),
    ],
)
def test_a_number_without_a_digit_is_not_passed_over(language, said):
    """Each one of them: alone in its text, too."""
    for each in re.split("[,、] ?", said) if "," in said or "、" in said else said.split():
        assert re.search(r"\d", in_digits(each, language)), each


@pytest.mark.parametrize("language", NUMERALS)
def test_numbers_are_read_in_a_moment(language):
    began = time.process_time()
    for nasty in (
        "1",
        "1,",
        "1.",
        "0,",
        "一",
        "十",
        "一百",
        "one ",
        "mil ",
        "1 x ",
        "3 cm x ",
        "i ",
        "1 1/2 ",
        "1 1/2 cm ",
    ):
        in_digits((nasty * 2_000)[:1_999] + "x", language)
    assert time.process_time() - began < 2
