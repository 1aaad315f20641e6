"""Answers that mean the same count together; nothing that could matter is ever merged."""

import os
import time
from functools import cache
from pathlib import Path

import pytest

from benchmarks.accuracy.meaning import (
    BAR,
    SETS,
    claimed,
    merged,
    met,
    pairs,
    pairs_of,
    share,
    unread,
)
from gateway.contract import Language
from gateway.verdict.text.meaning import meaning
from gateway.verdict.text.numbers import NUMBERS
from gateway.verdict.text.words import NO, SYNONYMS, YES
from models.data.example import DataError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Yes", "yes."),
        (" left  lung ", "Left lung"),
        ("右肺。", "右肺"),
        ("right lung, left lung", "left lung,right lung"),
        ("肝脏、肾脏", "肾脏，肝脏"),
        ("ＣＴ", "ct"),
        ("X-Ray", "x ray"),
        ("x\u2011ray", "x-ray"),
        ("Radiograph", "X-ray."),
        ("核磁共振", "MRI"),
        ("Magnetic resonance imaging", "MR"),
        ("MRI (Magnetic Resonance Imaging)", "MRI"),
        ("Axial", "Transverse Plane"),
        ("two", "2"),
        ("Two kidneys", "2 kidneys"),
        ("两", "2"),
        ("沒有", "没有"),
        ("對", "是"),
        ("X线", "X光"),
        ("Yes, it is", "yes"),
        ("Yes it is.", "yes"),
        ("No, there isn't.", "no"),
        ("没有", "不是"),
        ("Sí", "si"),
        ("The left lung", "left lung"),
        ("T1-weighted", "T1"),
        ("liver and heart", "heart, liver"),
        ("the left lung and the right lung", "right lung, left lung"),
        ("- Liver\n- Heart", "liver, heart"),
        ("- grade II", "grade II"),
        ("- T2", "T2"),
        ("- third rib", "third rib"),
        ("> left lung", "left lung"),
        ("> 2 cysts\n> 3 cysts", "2 cysts\n3 cysts"),
        ("–2.5", "-2.5"),
        ("**No**", "no"),
        ("(No)", "no"),
        ("1. No", "no"),
        ("A: No", "no"),
        ("Response: No", "no"),
        ("Ans: No", "no"),
        ("My answer is no", "no"),
        ("### Answer\nNo", "no"),
        ("```\nNo\n```", "no"),
        ("Answer: No", "no"),
        ("**Final Answer:** CT", "ct"),
        ("The answer is no.", "no"),
        ("Therefore, the correct answer is: left lung", "left lung"),
        ("$\\boxed{CT}$", "ct"),
        ("<answer>CT</answer>", "ct"),
        ('"CT"', "ct"),
        ('{"answer": "No"}', "no"),
        ("```json\n{'answer': 'CT'}\n```", "ct"),
        ("A) CT", "ct"),
        ("3.5cm", "3.5 cm"),
        ("3.5 centimeters", "3.5 cm"),
        ("3,5 centímetros", "3,5 cm"),
        ("3.5厘米", "3.5cm"),
        ("2 x 3cm", "2 x 3 cm"),
        ("pulmon izquierdo", "pulmón izquierdo"),
        ("Radiografia", "X-ray"),
        ("¡Sí!", "sí"),
        ("Afirmativo.", "sí"),
        ("双肺", "两肺"),
        ("(a) liver, (b) heart", "liver, heart"),
        ("(a) liver and (b) heart", "liver, heart"),
        ("This is a CT scan.", "ct"),
        ("The image shows the left lung.", "left lung"),
        ("Based on the image, the answer is the left lung.", "left lung"),
        ("The left lung is visible in the image.", "left lung"),
        ("CT\n\n**Explanation:** bone is white.", "ct"),
        ("图中显示的是肺。", "肺"),
        ("答案：否", "否"),
        ("根据图像，答案是左肺。", "左肺"),
        ("Computed Tomography (CT) scan", "CT"),
        ("An X-ray", "X-ray"),
        ("Left side.", "left"),
        ("RLL", "Right lower lobe"),
        ("lt lung", "left lung"),
        ("pulmonary oedema", "pulmonary edema"),
        ("grey", "gray"),
        ("CT w/o contrast", "CT without contrast"),
        ("both", "bilateral"),
        ("unremarkable", "normal"),
        ("圖像顯示雙側肺。", "双肺"),
        ("左側", "左"),
        ("肝臟", "肝"),
    ],
)
def test_what_stands_around_an_answer_does_not_part_answers(one, other):
    """Spelling, marks, the order of a list, synonyms, and what a model says before it answers."""
    assert meaning(one) == meaning(other)


EFFUSION = "Is there a pleural effusion?"
NODULES = "How many nodules are in the left and right lung?"
LARGER = "Is the left lung larger than the right lung?"


@pytest.mark.parametrize(
    ("question", "said", "answer"),
    [
        (EFFUSION, "No, there is no pleural effusion.", "no"),
        (EFFUSION, "There is no pleural effusion.", "no"),
        (EFFUSION, "There's no evidence of pleural effusion in this image.", "no"),
        (EFFUSION, "No pleural effusion is seen.", "no"),
        ("Was it taken with contrast?", "It was taken w/o contrast.", "no"),
        (EFFUSION, "Pleural effusion is absent.", "no"),
        (EFFUSION, "The image shows a pleural effusion.", "yes"),
        (EFFUSION, "Yes, there is a pleural effusion in the image.", "yes"),
        (EFFUSION, "No. The costophrenic angles are sharp.", "no"),
        (EFFUSION, "No. The image shows a normal study.", "no"),
        (EFFUSION, "No. No fluid is seen.", "no"),
        (EFFUSION, "Yes. It was present.", "yes"),
        (EFFUSION, "Yes. Fluid is seen.", "yes"),
        ("¿Hay derrame pleural?", "Sí. Se observa borramiento del ángulo.", "sí"),
        ("What modality is used?", "The modality used to take the image is CT.", "CT"),
        ("How many nodules are there?", "There is a nodule.", "1"),
        ("¿Cuántos nódulos hay?", "Hay un nódulo.", "1"),
        (EFFUSION, "Yes, because there is blunting of the angle.", "yes"),
        ("Where is the lesion located?", "The lesion is located in the left lung.", "left lung"),
        ("Where is the lesion located?", "The lesion is in the left lung.", "left lung"),
        ("Where is the lesion located?", "The lesion is seen in the left lung.", "left lung"),
        ("Where is the lesion located?", "The lesion lies in the left lung.", "left lung"),
        ("Where is the lesion located?", "It is located in the liver", "liver"),
        ("What is the location of the mass?", "in the liver", "liver"),
        ("What is the location of the mass?", "The mass is in the liver.", "liver"),
        ("What is the location of the mass?", "The location of the mass is the liver.", "liver"),
        (
            "In which lung is the lesion located?",
            "The lesion is located in the left lung.",
            "left lung",
        ),
        (
            "¿Dónde se encuentra la lesión?",
            "La lesión se encuentra en el pulmón izquierdo.",
            "pulmón izquierdo",
        ),
        ("¿Dónde se localiza la masa?", "La masa se localiza en el hígado.", "hígado"),
        ("¿Dónde está ubicada la masa?", "La masa está en el hígado.", "hígado"),
        ("病变位于哪里？", "病变位于左肺。", "左肺"),
        ("病变的位置在哪里？", "病变在左肺。", "左肺"),
        ("Is the lesion benign or malignant?", "The lesion is benign.", "benign"),
        (
            "Is the effusion on the left side or the right side?",
            "The effusion is on the left side.",
            "left",
        ),
        ("Which is bigger, the liver or the spleen?", "The liver is bigger.", "liver"),
        ("Is the mass solid or cystic?", "The mass is solid.", "solid"),
        ("Is the kidney normal or abnormal?", "The kidney is normal.", "normal"),
        ("Which side is affected, left or right?", "The left side is affected.", "left"),
        ("Is the mass left, right or bilateral?", "The mass is bilateral.", "bilateral"),
        ("Is the mass in the left or right lung?", "The mass is in the left lung.", "left lung"),
        ("¿La lesión es benigna o maligna?", "La lesión es benigna.", "benigna"),
        ("¿Es la lesión benigna o maligna?", "La lesión es benigna.", "benigna"),
        (
            "¿El derrame está a la izquierda o a la derecha?",
            "El derrame está a la izquierda.",
            "izquierda",
        ),
        ("¿Qué es más grande, el hígado o el bazo?", "El hígado es más grande.", "hígado"),
        ("病变在左侧还是右侧？", "病变在左侧。", "左侧"),
        ("病灶是良性还是恶性？", "病灶是良性。", "良性"),
        ("肝脏是否增大？", "肝脏增大。", "是"),
        ("肺部是否健康？", "肺部健康。", "是"),
        ("肺是否正常？", "肺正常。", "是"),
        ("肝脏是不是增大？", "肝脏没有增大", "否"),
        ("肝脏是不是增大？", "肝脏增大", "是"),
        ("What is the largest organ?", "The lung is the largest organ.", "lung"),
        ("¿Cuál es el órgano más grande?", "El pulmón es el órgano más grande.", "pulmón"),
        (
            "Which organ system is imaged?",
            "The respiratory system is imaged.",
            "respiratory system",
        ),
        ("What lobe of the lung is affected?", "The upper lobe is affected.", "upper lobe"),
        ("What imaging modality was used?", "CT was used.", "CT"),
        ("Which side is affected?", "The left side is affected.", "left"),
        ("Is the heart enlarged?", "The heart is not enlarged.", "no"),
        ("Is the heart enlarged?", "The heart isn't enlarged.", "no"),
        (LARGER, "The left lung is larger than the right lung.", "yes"),
        ("Was it taken with contrast?", "It was taken without contrast.", "no"),
        ("Does the picture contain liver?", "The picture does not contain the liver", "no"),
        ("What modality is used?", "The modality used is CT.", "CT"),
        ("What is the largest organ here?", "The largest organ is the lung.", "lung"),
        ("What color is the lung?", "The lung is black.", "black"),
        ("Which organ is abnormal?", "The abnormal organ is the heart.", "heart"),
        ("Where is the lesion?", "The lesion is located in the left lung.", "left lung"),
        ("How many kidneys are there?", "There are two kidneys in the image.", "2"),
        ("How many kidneys are there?", "Two kidneys", "2"),
        ("How many kidneys are there?", "There are no kidneys in the image.", "0"),
        ("How many kidneys are there?", "None", "0"),
        ("How many kidneys are there?", "Nil.", "0"),
        ("¿Cuántos nódulos hay?", "No hay nódulos.", "0"),
        ("¿Cuántos nódulos hay?", "No hay.", "0"),
        ("¿Cuántos nódulos hay?", "No hay ninguno", "0"),
        ("图中有几个结节？", "没有。", "0"),
        ("图中有几个结节？", "無", "0"),
        ("图中有几个结节？", "一个也没有", "0"),
        ("图中有几个结节？", "图中没有", "0"),
        ("图中有结节吗？", "没有", "不是"),
        ("¿Hay derrame pleural?", "No hay ningún derrame pleural.", "no"),
        ("¿Hay derrame pleural?", "No se observa ningún signo de derrame pleural", "no"),
        ("¿Cuánto mide?", "3,5 cm", "3.5 cm"),
        ("How large is it?", "2–3 cm", "2-3 cm"),
        ("图中有几个结节？", "图中没有结节。", "0"),
        (EFFUSION, "It is not.", "no"),
        (EFFUSION, "Absent.", "no"),
        (EFFUSION, "Negative.", "no"),
        (EFFUSION, "None seen.", "no"),
        (EFFUSION, "Present.", "yes"),
        (EFFUSION, "I can see a pleural effusion.", "yes"),
        (EFFUSION, "I see no pleural effusion.", "no"),
        ("¿Hay derrame pleural?", "No hay", "no"),
        ("Are there two nodules?", "There are 2 nodules.", "yes"),
        ("Is the mass > 3 cm?", "The mass is > 3 cm.", "yes"),
        (EFFUSION, "Yes—there is a pleural effusion.", "yes"),
        (EFFUSION, "Yes (there is a pleural effusion).", "yes"),
        (EFFUSION, "No because the angles are sharp.", "no"),
        ("Which is it? A. CT B. MRI", "B", "MRI"),
        ("Which is it? A. CT B. MRI", "B. MRI", "MRI"),
        ("Which is it? A. CT B. MRI", "B - MRI", "MRI"),
        ("Which is it? A. CT B. MRI", "The correct option is B", "MRI"),
        ("Which is it? A. CT B. MRI", "I choose B", "MRI"),
        ("Which is it? A. CT B. MRI", "It is B.", "MRI"),
        ("Which side? A. right B. left", "A is right", "right"),
        ("Which side? A. right B. left", "B is left", "left"),
        ("Which is it? A. CT B. MRI", "B is the correct answer.", "MRI"),
        ("Which is it? A. CT B. MRI", "Option B (MRI)", "MRI"),
        ("Which is it? A. CT B. MRI", "MRI (B)", "MRI"),
        ("Which is it? A. CT B. MRI", "The answer is MRI [B].", "MRI"),
        ("Which is it? A. CT B. MRI", "It is an MRI (option B).", "MRI"),
        ("Which is it? A. CT B. MRI", "MRI, option B", "MRI"),
        ("Which is it? A. CT B. MRI", "MRI - B", "B"),
        ("Which is it? A. hepatitis A B. hepatitis B", "hepatitis A (A)", "A"),
        ("¿Cuál es? A. TC B. RM", "Es la B.", "RM"),
        ("¿Cuál es? A. TC B. RM", "RM (B)", "RM"),
        ("¿Cuál es? A. TC B. RM", "La opción correcta es B", "RM"),
        ("是哪种? A. CT B. 磁共振。", "磁共振（B）", "MRI"),
        ("是哪种? A. CT B. 磁共振。", "磁共振，选项B", "MRI"),
        ("是哪种? A. CT B. 磁共振。", "答案选B", "MRI"),
        ("是哪种? A. CT B. 磁共振。", "B项", "MRI"),
        ("是哪种? A. CT B. 磁共振。", "我选B", "MRI"),
        ("是哪种? A. CT B. 磁共振。", "B选项", "MRI"),
        ("Which is it? (A) CT (B) MRI", "The answer is (B).", "MRI"),
        ("Is it one? A) Yes, B) No", "\\boxed{B}", "no"),
        ("图中有胸腔积液吗？", "图中没有胸腔积液。", "没有"),
        ("图中有胸腔积液吗？", "没有，图中未见胸腔积液。", "没有"),
        ("图片中是否包含肝脏？", "是的，图片中包含肝脏。", "是"),
        ("肺是健康的吗？", "肺不健康。", "不是"),
        ("这张图像的模态是什么？", "这张图像的模态是CT。", "CT"),
        ("图中的肺是什么颜色？", "图中的肺是黑色的。", "黑色"),
        ("病变在哪里？", "病变位于左肺。", "左肺"),
        ("图中有几个肾？", "图中有两个肾。", "2"),
        ("图中有胸腔积液吗？", "未见", "没有"),
        ("¿Hay derrame pleural?", "Sí, lo hay.", "sí"),
        ("¿Hay derrame pleural?", "No hay derrame pleural.", "no"),
        ("¿Hay derrame pleural?", "No, no hay derrame pleural.", "no"),
        ("¿Hay derrame pleural?", "No se observa derrame pleural en la imagen.", "no"),
        ("¿Hay derrame pleural?", "Sí hay derrame pleural", "sí"),
        ("¿Hay derrame pleural?", "Sí, hay un derrame pleural.", "sí"),
        ("¿Cuál es el órgano más grande?", "El órgano más grande es el pulmón.", "pulmón"),
        ("¿Dónde está la lesión?", "Está en el pulmón izquierdo.", "pulmón izquierdo"),
        ("¿Donde esta la lesion?", "La lesion esta en el pulmon izquierdo.", "pulmón izquierdo"),
        ("¿Que modalidad es?", "La modalidad es TC.", "TC"),
        ("¿Cuantos riñones hay?", "Hay dos riñones.", "2"),
        ("¿Esta el pulmon sano?", "El pulmón no está sano.", "no"),
        (EFFUSION, "Based on the chest X-ray, there is no pleural effusion.", "no"),
        (EFFUSION, "The chest X-ray shows a pleural effusion.", "yes"),
        (EFFUSION, "No, there is no pleural effusion on this chest X-ray.", "no"),
        (EFFUSION, "No pleural effusions.", "no"),
        ("Are there masses?", "There is no mass.", "no"),
        ("Are there metastases?", "No metastasis is seen.", "no"),
        ("Is the heart enlarged?", "The heart appears enlarged.", "yes"),
        ("What is the diagnosis?", "**Diagnosis:** Pneumonia", "pneumonia"),
        ("What is the diagnosis?", "The patient has pneumonia.", "pneumonia"),
        ("Which side is affected?", "On the left", "left"),
        ("Where is the lesion?", "The lesion can be seen in the left lung.", "left lung"),
        ("¿Hay lesiones?", "No hay ninguna lesión.", "no"),
        ("¿Hay lesiones?", "Sí, hay una lesión.", "sí"),
        ("¿Hay derrame pleural?", "En la radiografía no se observa derrame pleural.", "no"),
        ("¿Hay derrame pleural?", "No se identifica derrame pleural.", "no"),
        ("¿Es normal el corazón?", "El corazón es normal.", "sí"),
        ("¿Es normal el corazón?", "No, el corazón no es normal.", "no"),
        ("¿Qué lado está afectado?", "A la izquierda", "lado izquierdo"),
        ("¿Dónde está la lesión?", "Se encuentra en el pulmón izq.", "pulmón izquierdo"),
        ("图中有胸腔积液吗？", "根据这张胸片，没有胸腔积液。", "没有"),
        ("图中有胸腔积液吗？", "圖中沒有胸腔積液。", "没有"),
        ("圖中有胸腔積液嗎？", "图中有胸腔积液。", "有"),
        ("心脏增大了吗？", "心脏增大。", "是"),
        ("诊断是什么？", "诊断：肺炎", "肺炎"),
        ("是否有肺不张？", "是的，有肺不张。", "是"),
        ("是否有肺不张？", "未见肺不张。", "否"),
        ("有没有营养不良？", "没有营养不良", "没有"),
        ("图中有非小细胞肺癌吗？", "图中有非小细胞肺癌。", "有"),
        ("What is the size of the nodule?", "The nodule is 3 cm.", "3 cm"),
        ("What is the size of the nodule?", "The nodule measures 3 cm.", "3 cm"),
        ("What is the color of the liver?", "The liver is gray.", "gray"),
        ("¿Cuál es el tamaño del nódulo?", "El nódulo mide 3 cm.", "3 cm"),
        ("Is the heart enlarged?", "It is enlarged.", "yes"),
        ("Is the heart enlarged?", "It isn't enlarged.", "no"),
        ("Are the left ribs broken?", "They are broken.", "yes"),
        ("Is there a spleen?", "It is absent.", "no"),
        ("Is there a spleen?", "It is present.", "yes"),
        ("¿Es normal el corazón?", "No es normal.", "no"),
        ("¿Es el corazón normal?", "Es normal.", "sí"),
        ("¿Está agrandado el riñón izquierdo?", "No está agrandado.", "no"),
        ("How many kidneys are there?", "Only one.", "1"),
        ("How many kidneys are there?", "Just two kidneys", "2"),
        ("¿Cuántos riñones hay?", "Sólo uno", "1"),
        ("图中有几个肾？", "只有一个", "1"),
        ("图中有胸腔积液吗？", "未见到胸腔积液", "没有"),
        ("Is the left or the right lung larger?", "The left lung is larger.", "left"),
        ("Is the left or the right lung larger?", "left lung", "left"),
        ("Is the liver or the spleen larger?", "The liver is larger.", "liver"),
        (
            "¿Es mayor el pulmón izquierdo o el derecho?",
            "El pulmón izquierdo es mayor",
            "izquierdo",
        ),
        (EFFUSION, "ASSISTANT: No", "no"),
        (EFFUSION, "<|assistant|> There is no pleural effusion.</s>", "no"),
        (EFFUSION, "No<|im_end|>", "no"),
        (EFFUSION, "No<end_of_turn>", "no"),
        (EFFUSION, "ASSISTANT:\nNo", "no"),
        (EFFUSION, "<|im_start|>assistant\nNo<|im_end|>", "no"),
        (EFFUSION, "<start_of_turn>model\nNo<end_of_turn>", "no"),
        ("Is the heart enlarged?", "It's enlarged.", "yes"),
        ("Is the nodule in the left or the right lung?", "In the left lung.", "left"),
    ],
)
def test_a_sentence_of_the_questions_own_words_is_its_answer(question, said, answer):
    language: Language = "zh" if ord(question[-2]) > 0x3000 else "es" if "¿" in question else "en"
    assert meaning(said, language, question) == meaning(answer, language, question)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("图中有小细胞肺癌吗？", "图中有非小细胞肺癌。"),
        ("密度均匀吗？", "不良"),
        ("图中有良性病变吗？", "图中有不良病变。"),
    ],
)
def test_half_a_denial_is_no_denial(question, said):
    assert meaning(said, "zh", question) not in {meaning(each, "zh", question) for each in "是否"}


# Which side, organ or number is whose, only the order tells.
SWAPPED = [
    ("Right lung\n- effusion\nLeft lung\n- clear", "Left lung\n- effusion\nRight lung\n- clear"),
    ("3 cm, left; 2 cm, right", "2 cm, left; 3 cm, right"),
    ("aspirin, 75 mg; warfarin, 5 mg", "aspirin, 5 mg; warfarin, 75 mg"),
    ("enlarged: liver, spleen; small: kidney", "enlarged: liver, kidney; small: spleen"),
    ("左肺，3cm；右肺，2cm", "左肺，2cm；右肺，3cm"),
    ("左肺，结节；右肺，积液", "右肺，结节；左肺，积液"),
    ("left lung, effusion, right lung, clear", "right lung, effusion, left lung, clear"),
    ("liver, large, spleen, small", "liver, small, spleen, large"),
    ("2 and 1", "1 and 2"),
    ("10 mm and 1.2 cm", "1.2 cm and 10 mm"),
    ("2 nodules and 1 nodule", "1 nodule and 2 nodules"),
    ("left, right", "right, left"),
    ("左侧、右侧", "右侧、左侧"),
    ("mass, left, cyst", "mass, cyst, left"),
    ("3 cm, mass, cyst", "mass, 3 cm, cyst"),
    ("mass, large, cyst", "mass, cyst, large"),
    ("acute, infarct, chronic, bleed", "chronic, infarct, acute, bleed"),
    ("effusion, mild, edema, severe", "effusion, severe, edema, mild"),
    ("肿块、左侧、囊肿", "肿块、囊肿、左侧"),
    ("急性、梗死、慢性、出血", "慢性、梗死、急性、出血"),
    ("积液、3 cm、结节", "3 cm、积液、结节"),
    ("2个和1个", "1个和2个"),
    ("2 and 1, respectively", "1 and 2, respectively"),
    ("liver and spleen, respectively", "spleen and liver, respectively"),
]

# A question for several things, or for an order, and two answers to it.
IN_ORDER = [
    ("¿Qué hallazgos hay?", "masa, leve, quiste", "masa, quiste, leve"),
    ("¿Qué hallazgos hay?", "masa, derecha, quiste", "masa, quiste, derecha"),
    ("How many nodules are in the left and right lung?", "2 and 1", "1 and 2"),
    ("What are the sizes of the left and right kidneys?", "10 cm, 12 cm", "12 cm, 10 cm"),
    ("Which lung is bigger and which is smaller?", "left, right", "right, left"),
    ("Are the left and right kidneys normal?", "normal, abnormal", "abnormal, normal"),
    ("What is the signal on T1 and T2?", "dark and bright", "bright and dark"),
    ("What are the modalities of image 1 and image 2?", "CT and MRI", "MRI and CT"),
    ("Which organs, from largest to smallest?", "liver, spleen", "spleen, liver"),
    ("Which organs are there, left to right?", "liver, stomach", "stomach, liver"),
    ("Rank the organs by size.", "liver, spleen, heart", "spleen, liver, heart"),
    ("What is seen in each lung?", "effusion, mass", "mass, effusion"),
    ("¿Cuánto miden los riñones izquierdo y derecho?", "10 cm y 12 cm", "12 cm y 10 cm"),
    ("¿Qué órganos se ven, de mayor a menor?", "hígado, bazo", "bazo, hígado"),
    ("¿Qué muestra cada pulmón?", "masa, derrame", "derrame, masa"),
    ("左肺和右肺各有几个结节？", "2个和1个", "1个和2个"),
    ("T1、T2上分别是什么信号？", "低信号和高信号", "高信号和低信号"),
    ("器官由大到小依次是什么？", "肝脏、脾脏", "脾脏、肝脏"),
]


def test_the_order_of_a_list_of_one_kind_tells_nothing():
    for one, other in [
        ("liver, left kidney, spleen", "spleen, liver, left kidney"),
        ("cardiomegaly, effusion, edema", "edema, effusion, cardiomegaly"),
        ("effusion, left lung", "left lung, effusion"),
        ("肝脏、肾脏、脾", "脾、肝、肾脏"),
        ("Rectum, Small Bowel, Colon", "Colon, Small Bowel, Rectum"),
        ("face, sinuses, and neck", "neck, face, and sinuses"),
        ("Left lung, right lung, heart, spinal cord", "spinal cord, heart, right lung, left lung"),
        ("- liver\n- heart", "- heart\n- liver"),
        ("The organs are:\n- liver\n- heart", "The organs are:\n- heart\n- liver"),
        ("肺、心脏、纵隔", "纵隔、肺、心脏"),
        ("2 nodules, 1 mass", "1 mass, 2 nodules"),
        ("4th rib, 5th rib", "5th rib, 4th rib"),
        ("L4, L5", "L5, L4"),
        ("mass, left", "left, mass"),
        ("large mass, small cyst, edema", "edema, small cyst, large mass"),
    ]:
        assert meaning(one) == meaning(other)


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        ("Which organs are shown?", "liver, spleen", "spleen and liver"),
        ("And which organs belong to the digestive system?", "liver, colon", "colon, liver"),
        ("¿Qué órganos del paciente se ven?", "hígado, bazo", "bazo y hígado"),
        ("从图中可以看到哪些器官？", "肝脏、肾脏", "肾脏和肝脏"),
    ],
)
def test_nor_to_a_question_for_one_kind(question, one, other):
    language: Language = "es" if "¿" in question else "en"
    assert meaning(one, language, question) == meaning(other, language, question)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("yes", "yes, left"),
        ("yes", "Yes, it is not"),
        ("no", "No, it is"),
        ("no", "not seen"),
        ("no", "no effusion"),
        ("left lung", "lung left"),
        ("left lung", "right lung"),
        ("左肺", "右肺"),
        ("1.5", "15"),
        ("-5", "5"),
        ("1-2", "1 2"),
        ("2", "3"),
        ("3", "3,3"),
        ("3", "3, 3"),
        ("1,000", "1"),
        ("1,000 ml", "1.000 ml"),
        ("> three cm", "three cm"),
        ("edema &lt; 3", "edema & left 3"),
        ("edema &lt; 3", "edema &left 3"),
        ("> grade II", "grade II"),
        ("> -2.5", "-2.5"),
        ("- 12.5 HU", "12.5 HU"),
        ("> 三厘米", "三厘米"),
        ("10²", "102"),
        ("10²", "10³"),
        ("10⁻²", "10²"),
        ("2,5 cm", "5 cm, 2"),
        ("lung", "lung, lung"),
        ("two lungs", "three lungs"),
        ("CT w/o contrast", "CT w contrast"),
        ("hepatitis A", "hepatitis"),
        ("hepatitis A", "hepatitis B"),
        ("la lung", "lung"),
        ("el", "l"),
        ("enhancing", "non-enhancing"),
        ("hypodense", "hyperdense"),
        ("T1", "T2"),
        ("t2* gradient", "t2 gradient"),
        ("ct of the chest", "ct"),
        ("none", "no"),
        ("正常", "不正常"),
        ("包含", "不包含"),
        ("no mass, effusion", "effusion, no mass"),
        ("enlarged liver and spleen", "spleen and enlarged liver"),
        ("This is not a CT scan.", "This is a CT scan."),
        ("Answer: yes\nQuestion: is it large?\nAnswer: no", "no"),
        ("The left lung is not visible in the image.", "left lung"),
        ("A", "A) CT"),
        ("grade (a) tumor", "grade (b) tumor"),
        ("grade (a) tumor, grade (b) tumor", "grade tumor, grade tumor"),
        ("Left lung, answer: right lung", "right lung"),
        ("No. The answer is yes", "yes"),
        *SWAPPED,
    ],
)
def test_what_may_differ_in_meaning_stays_apart(one, other):
    assert meaning(one) != meaning(other)


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        (EFFUSION, "yes", "Yes, there is no pleural effusion."),
        (EFFUSION, "no", "No, there is a pleural effusion."),
        (EFFUSION, "yes", "Yes. It is in the left lung."),
        (EFFUSION, "Yes. It is on the right.", "Yes. It is on the left."),
        (EFFUSION, "no", "No. However, it may be too early."),
        (EFFUSION, "no", "There is no pleural effusion or pneumothorax."),
        (EFFUSION, "no", "A pleural effusion cannot be excluded."),
        (EFFUSION, "yes", "pleural effusion"),
        (EFFUSION, "Yes. It is proximal.", "Yes. It is distal."),
        (EFFUSION, "Yes. It is displaced.", "Yes. It is nondisplaced."),
        (EFFUSION, "No. It is in the ileum.", "No. It is in the ilium."),
        (EFFUSION, "Yes. Prednisone.", "Yes. Prednisolone."),
        ("CT or MRI?", "The CT shows the mass.", "The MRI shows the mass."),
        ("CT or MRI?", "Yes, on the CT.", "Yes, on the MRI."),
        ("Is the mass seen on the MRI?", "yes", "The mass is seen on the CT."),
        ("Which scan is it?", "CT, axial", "axial"),
        ("¿Hay derrame pleural?", "Sí. Es proximal.", "Sí. Es distal."),
        ("图中有胸腔积液吗？", "有。位于回肠。", "有。位于髂骨。"),
        ("图中有胸腔积液吗？", "有", "有无胸腔积液"),
        ("哪种检查？", "CT，轴位", "轴位"),
        (EFFUSION, "yes", "There may be a pleural effusion."),
        ("Is there a left pleural effusion?", "yes", "There is a pleural effusion."),
        ("Is there no pleural effusion?", "yes", "There is a pleural effusion."),
        (LARGER, "yes", "The right lung is larger than the left lung."),
        ("Is the spleen normal?", "no", "Absent."),
        ("Is there a negative wave?", "no", "Negative."),
        ("Which is it? A. CT B. MRI", "A: MRI", "MRI"),
        ("Are there two nodules?", "yes", "Yes. There are three."),
        ("Is the mass > 3 cm?", "yes", "The mass is < 3 cm."),
        ("Is this a T2* image?", "yes", "This is a T2 image."),
        ("Is it a CT or an MRI?", "It is a CT.", "It is an MRI."),
        ("Which is larger, left or right lung?", "left lung is larger", "right lung is larger"),
        ("What organ is on the left?", "The organ on the right is the liver.", "liver"),
        ("How the left and right lung differ?", "The left lung is smaller.", "smaller"),
        ("Where is the lesion?", "above the rectum", "rectum"),
        ("Where is the lesion?", "not in the lung", "in the lung"),
        ("How many are there?", "right kidney", "right"),
        ("How much?", "5%", "5"),
        ("Which is it? A. CT B. MRI", "A", "B"),
        ("Which is it? A. CT B. MRI", "A. MRI", "A"),
        ("Which is it? A. CT B. MRI", "MRI (A)", "MRI"),
        ("Which is it? A. CT B. MRI", "MRI (A)", "A"),
        ("Which is it? A. CT B. MRI", "MRI, option A", "MRI"),
        ("Which is it? A. CT B. MRI", "MRI or CT (B)", "B"),
        ("Which is it? A. CT B. MRI", "not MRI (B)", "B"),
        ("Which is it? A. CT B. MRI", "B is incorrect", "B"),
        ("Which is it? A. CT B. MRI", "It is not B", "B"),
        ("Which side? A. right B. left", "B is right", "B"),
        ("Which side? A. right B. left", "A is left", "left"),
        ("Which side? A. right B. left", "(A) is left", "left"),
        ("¿Qué lado? A. derecho B. izquierdo", "A es izquierdo", "izquierdo"),
        ("Which? A. hepatitis B B. hepatitis", "hepatitis (B)", "hepatitis"),
        ("Which? A. hepatitis A B. hepatitis B", "hepatitis (B)", "hepatitis A"),
        ("¿Cuál es? A. TC B. RM", "No es la B", "RM"),
        ("是哪种? A. CT B. MRI", "不选B", "B"),
        ("图中有胸腔积液吗？", "有", "有，左侧"),
        ("左肺比右肺大吗？", "是", "右肺比左肺大"),
        ("这是CT吗？", "不是", "不是，这是MRI"),
        ("¿Hay derrame pleural?", "no", "No hay derrame pleural izquierdo."),
        ("¿Cuántos nódulos hay?", "0", "No sé"),
        ("How many are there?", "0", "No"),
        ("图中有几个结节？", "0", "不清楚"),
        *IN_ORDER,
        ("Is the lesion benign or malignant?", "The lesion is not benign.", "benign"),
        ("Is the lesion benign or malignant?", "The lesion is benign.", "malignant"),
        (
            "Is the lesion benign or malignant?",
            "The mass is benign and the lesion malignant",
            "benign",
        ),
        (
            "Is the left or the right lung larger?",
            "The left lung is larger.",
            "The right lung is larger.",
        ),
        ("Is the left or the right lung larger?", "The left is larger.", "The right is larger."),
        (
            "Is the left lung or the right lung larger?",
            "The left is larger.",
            "The right is larger.",
        ),
        ("Which is bigger, the liver or the spleen?", "The liver is bigger.", "spleen"),
        ("Which is bigger, the liver or the spleen?", "The liver is not bigger.", "liver"),
        (
            "Is the left kidney normal or the right kidney abnormal?",
            "The left kidney is normal",
            "The right kidney is normal",
        ),
        ("Is the left kidney normal or abnormal?", "The right kidney is normal.", "normal"),
        (
            "Is the left kidney normal or the right?",
            "The left kidney is normal.",
            "The right kidney is normal.",
        ),
        ("Is it CT or MRI?", "The CT is normal", "The MRI is normal"),
        ("What organ is left of the liver?", "The kidney is right of the liver", "kidney"),
        ("Which side is affected?", "The left side is not affected.", "left"),
        ("Where is the lesion located?", "The lesion is above the left lung.", "left lung"),
        ("Where is the lesion located?", "The mass is in the left lung.", "left lung"),
        ("Where is the lesion located?", "The lesion is not in the left lung.", "left lung"),
        ("是否CT？", "CT", "是"),
        ("这是不是肺炎？", "肺炎", "是"),
        ("是否有肺不张？", "肺不张", "是"),
        ("有没有胸腔积液？", "胸腔积液", "有"),
        ("肝脏是否增大？", "脾脏增大", "是"),
        ("肝脏是否增大？", "肝脏缩小", "是"),
        ("左肺还是右肺大？", "左肺大", "右肺大"),
        ("左肺还是右肺更大？", "左肺是更大的", "右肺是更大的"),
        (
            "¿Es más grande el pulmón izquierdo o el derecho?",
            "El izquierdo es más grande",
            "El derecho es más grande",
        ),
        (
            "Is the tumor of the left or right kidney solid?",
            "The tumor of the left kidney is solid",
            "The tumor of the right kidney is solid",
        ),
        ("病变位于哪里？", "病变位于左肺上方。", "左肺"),
        ("What is in the left lung?", "The mass is in the right lung.", "mass"),
        ("How many are there?", "1", "A number of nodules are seen."),
        (NODULES, "1", "There are a number of nodules."),
        (NODULES, "1", "a total of nodules"),
        (NODULES, "1", "a nodule in the left lung and a nodule in the right lung"),
        (NODULES, "0", "no nodules in the left lung, nodules in the right lung"),
        (NODULES, "0", "no nodules in the left lung and some in the right lung"),
        ("¿Cuántos nódulos hay?", "1", "un número de nódulos"),
        ("¿Cuántos nódulos hay?", "1", "Hay un total de nódulos."),
        (EFFUSION, "yes", "There used to be a pleural effusion."),
        (EFFUSION, "yes", "A pleural effusion used to be present."),
        (EFFUSION, "yes", "There had been a pleural effusion."),
        (EFFUSION, "yes", "Yes. There used to be a pleural effusion."),
        (EFFUSION, "yes", "Yes. The effusion has resolved."),
        ("Does the liver contain a mass?", "yes", "The liver used to contain a mass."),
        ("¿Hay derrame pleural?", "sí", "Sí. Ya se resolvió."),
        ("¿Hay derrame pleural?", "sí", "Sí. Ha desaparecido."),
        ("¿Hay derrame pleural?", "sí", "Sí. El derrame ya se resolvió."),
        ("图中有胸腔积液吗？", "有", "有。现已吸收消失。"),
        (EFFUSION, "no", "No. A small amount is present."),
        (EFFUSION, "no", "No. A trace is visible."),
        (EFFUSION, "no", "No. There is a small amount."),
        (EFFUSION, "no", "No. The image shows fluid."),
        ("Does the image show a mass?", "no", "No. A small one is seen."),
        ("¿Hay derrame pleural?", "no", "No. Hay líquido."),
        ("¿Hay derrame pleural?", "no", "No. Se observa una pequeña cantidad."),
        ("图中有胸腔积液吗？", "没有", "没有。可见少量。"),
        ("图中有胸腔积液吗？", "没有", "没有。有少量液体。"),
        ("What is the size of the nodule?", "The cyst is 3 cm.", "3 cm"),
        ("Is the liver the largest organ in the abdomen?", "It is in the abdomen.", "yes"),
        ("Is the heart size normal?", "It is small and normal.", "yes"),
        ("Is the left lung larger than the right lung?", "It is larger than the heart.", "yes"),
        ("¿Es normal el corazón?", "Es anormal.", "sí"),
        ("How many kidneys are there?", "not only one", "1"),
        ("How many kidneys are there?", "just over one", "1"),
        ("Is the left or the right lung larger?", "The left lung is smaller.", "left"),
        ("Is the left or the right lung larger?", "The left lung is not larger.", "left"),
        ("Is the left or the right lung larger?", "left kidney", "left"),
        (
            "Is the left lung larger or smaller than the right lung?",
            "The left lung is larger.",
            "The left lung is smaller.",
        ),
        (
            "Is the nodule in the left lung or the right kidney?",
            "In the left lung.",
            "In the left kidney.",
        ),
        ("Is the liver or the spleen larger?", "The liver is larger.", "spleen"),
        (
            "Is the nodule left or right of the trachea?",
            "Left",
            "The trachea is left of the nodule.",
        ),
        (
            "Is the stomach on the left or right of the liver?",
            "Right",
            "The liver is on the right.",
        ),
        (
            "Is the left or right kidney larger than the spleen?",
            "left",
            "The spleen is larger than the left kidney.",
        ),
        (
            "Is the left or right ventricle compressing the septum?",
            "left ventricle",
            "The septum is compressing the left ventricle.",
        ),
        (
            "¿La tráquea está a la izquierda o a la derecha de la columna?",
            "izquierda",
            "La columna está a la izquierda de la tráquea.",
        ),
        (
            "¿Es el riñón izquierdo o el derecho mayor que el bazo?",
            "izquierdo",
            "El bazo es mayor que el riñón izquierdo.",
        ),
        (
            "Is the effusion on the left or right side?",
            "on the patient's left",
            "Left side of the image",
        ),
        ("Is the left or the right lung larger?", "left", "Left lung?"),
        ("Is the left or the right lung larger?", "left", "The left lung is larger?"),
        ("Is the left or the right lung larger?", "left", "Is the left lung larger?"),
        ("Is the left or the right lung larger?", "left", "The left lung can be larger"),
        ("Is it on the left or on the right?", "left", "≠ left"),
        ("Is it on the left or on the right?", "left", "❌ left"),
        ("Is the mass in the left or right lung or kidney?", "left", "left lung"),
        ("Is the lesion in the brain?", "yes", "This is the brain."),
        ("Is there fluid in the lungs?", "yes", "These are the lungs."),
        ("Is the catheter in the bladder?", "yes", "That is the bladder."),
        ("¿Está la lesión en el hígado?", "sí", "Es el hígado."),
        ("¿Está la lesión en el hígado?", "no", "No es el hígado."),
        ("Are the lungs clear?", "no", "It is not clear."),
        ("Is the diagnosis certain?", "no", "It is not certain."),
        ("Is the margin unclear?", "yes", "It is unclear."),
        ("Is the heart enlarged?", "no", "It is enlarged, is it not"),
        ("Is the heart enlarged?", "no", "It is enlarged, no."),
        ("¿Es normal el corazón?", "no", "Es normal, no."),
        ("Are the lungs clear?", "yes", "They are clear in some images"),
        ("Is the arrow on the right?", "yes", "That is right."),
        ("Is there a negative T wave?", "no", "It is negative."),
        ("Are there missing teeth?", "no", "They are absent."),
        ("Is there a lack of contrast?", "no", "It is absent."),
        ("Is there nonvisualization of the gallbladder?", "no", "It is not seen."),
        ("What is the opposite side of the lesion?", "left", "The lesion is on the left."),
        ("Where is the tip of the catheter?", "trachea", "The catheter is in the trachea."),
        ("What is the normal size of the spleen?", "15 cm", "The spleen is 15 cm."),
        ("Is this a nodule or lung cancer?", "nodule", "The nodule is cancer."),
        ("Is this a mass or pleural effusion?", "mass", "The mass is an effusion."),
        ("Is the liver or the spleen larger?", "liver", "The liver is larger?"),
        ("How many ribs are fractured?", "4", "Only rib 4."),
        ("How many ribs are fractured?", "7", "Just rib number seven"),
        ("Is there an effusion?", "no", "<|yes|>no"),
    ],
)
def test_a_question_merges_nothing_that_differs(question, one, other):
    """A side, an organ, a doubt or a contradiction more than yes or no is another answer."""
    language: Language = "es" if "¿" in question else "en"
    assert meaning(one, language, question) != meaning(other, language, question)


COUNT: dict[Language, str] = {
    "en": "How many nodules are there?",
    "es": "¿Cuántos nódulos hay?",
    "zh": "图中有几个结节？",
}
COUNTED: dict[Language, str] = {
    "en": "3|>3,> 3,more than 3,> three|<3,less than 3|≥3,at least 3|≤3,at most 3|~3,≈3,about 3|3+|"
    "-3,−3,–3|±3|- 3,- three,− 3|=3?|.3|3%|3 or more|3 or 4|over 3|"
    "There are more than three nodules.|no 3|0|not many|not seen|no new nodules|no more than 3|"
    "no left nodules",
    "es": "3|>3,más de 3,> tres|-3,–3|- 3,- tres|3+|menos de 3|al menos 3|unos 3|casi 3|"
    "Hay más de tres nódulos|0|no hay muchos",
    "zh": "3|＞3|- 3|- 三个|3+|多于3个,超过3个,> 三个|少于3个|至少3个|最多3个|约3个|3个以上|"
    "图中有至少三个结节|0|不多",
}


@pytest.mark.parametrize("language", COUNT)
def test_a_number_with_a_sign_or_a_comparison_is_not_that_number(language):
    """One comparison is one, in a sign or in words; no two are, and none is the number."""
    rows = [row.split(",") for row in COUNTED[language].split("|")]
    meant = [{meaning(each, language, COUNT[language]) for each in row} for row in rows]
    assert all(len(row) == 1 for row in meant), meant
    assert len(set.union(*meant)) == len(rows)


def test_a_comparison_in_the_question_is_none_in_a_bare_number():
    question = "How many nodules are more than 3 mm?"
    assert meaning("more than 4", "en", question) != meaning("4", "en", question)
    assert meaning("There are 4 nodules.", "en", question) == meaning("4", "en", question)


# What pattern matching that looks for the same end again and again is slow at.
NASTY = ["`", "\n", "\n\t", "*a", "__a", "**a", "<answer>", "\\boxed{", "(", "- \n", "> ", "1."]
NASTY += [
    " is",
    "是",
    ",",
    ", ",
    " and ",
    "A. ",
    "(a) ",
    "、",
    " ",
    "½ ",
    "ﷺ",
    "no. ",
    "answer: ",
    "“",
    "n't ",
    "left or ",
    "[(",
    "$",
    '{"answer": ',
    "from 1 to ",
    "我的",
    ", option ",
    " - a",
]


@pytest.mark.parametrize("language", COUNT)
def test_what_a_caller_may_send_is_read_in_a_moment(language):
    """2,000 characters of any kind, as an answer and as a question, with another at the end."""

    def seconds(characters: int) -> float:
        began = time.process_time()
        for nasty in NASTY:
            for begins in ("", "A. x", "`"):
                text = f"{begins}{nasty * characters}"[: characters - 1] + "x"
                meaning(text, language, COUNT[language])
                meaning("3", language, text)
                meaning(text, language, "Which is it? A. CT B. MRI")
        return time.process_time() - began

    assert seconds(2_000) < 2


FOR_EACH = {"en": EFFUSION, "es": "¿Hay derrame pleural?", "zh": "图中有胸腔积液吗？"}


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", EFFUSION),
        ("en", "There is a pleural effusion?"),
        ("es", "¿Hay derrame pleural?"),
        ("zh", "图中有胸腔积液吗？"),
        ("zh", "有没有胸腔积液"),
        ("en", "No\nYes"),
        ("en", "No. The answer is yes."),
        ("en", "No. Correction: yes."),
        ("en", "No. A small effusion is seen."),
        ("en", "False. Yes."),
        ("en", "No, because yes"),
        ("en", "Yes. No."),
        ("es", "No. La respuesta es sí."),
        ("es", "No. Se observa un pequeño derrame."),
        ("zh", "没有。答案是有。"),
        ("zh", "没有。可见少量积液。"),
        ("en", "Yes. Probably."),
        ("en", "Yes. Unsure."),
        ("en", "Yes. Ruled out."),
        ("en", "No. I was wrong."),
        ("en", "Yes. The opposite is true."),
        ("en", "No. An effusion cannot be excluded."),
        ("en", "Yes. Negative."),
        ("en", "No. Positive."),
        ("es", "No. Es falso."),
        ("es", "Sí. Tal vez."),
        ("es", "Sí. Probablemente."),
        ("zh", "没有。错了。"),
        ("en", "Yes (?)"),
        ("en", "Yes, there is a pleural effusion?"),
        ("en", "Yes. The findings are inconclusive."),
        ("en", "No. That is questionable."),
        ("es", "Sí, ¿hay derrame pleural?"),
        ("es", "Sí. Es cuestionable."),
        ("zh", "有，胸腔积液？"),
        ("zh", "有。不明确。"),
    ],
)
def test_a_question_a_contradiction_and_a_doubt_are_no_votes(language, said):
    """For neither yes nor no."""
    assert meaning(said, language, FOR_EACH[language]) not in (("yes",), ("no",))


SIDES = {"left": "right", "izquierdo": "derecho", "左": "右", "upper": "lower", "上": "下"}
AROUND = [
    "{} lung",
    "the {} kidney, liver",
    "yes, {}",
    "{}",
    "{} lobe of {} lung, 2",
    "{}肺",
    "no, {}",
    "Yes. It is in the {} lung.",
    "The image shows the {} lung.",
    "**{}**",
    "The answer is {}.",
    "{} lung and liver",
]


@pytest.mark.parametrize("question", ["", EFFUSION, LARGER, "Where is it?", "How many are there?"])
@pytest.mark.parametrize("around", AROUND)
def test_sides_and_numbers_always_tell_answers_apart(around, question):
    def said(word: object) -> tuple[str, ...]:
        return meaning(around.format(word, word), "en", question)

    for one, other in SIDES.items():
        assert said(one) != said(other)
    assert len({said(number) for number in range(11)}) == 11


# Words of which one must never count for the other: sides, organs, drugs, prefixes, denials.
APART: dict[Language, str] = {
    "en": "left/right left/bilateral proximal/distal internal/external ventral/dorsal "
    "superficial/deep ipsilateral/contralateral intradural/extradural subdural/epidural "
    "ileum/ilium ileal/iliac peroneal/perineal carotid/parotid ureter/urethra humerus/humeral "
    "carpal/tarsal tibia/fibula hyperdense/hypodense hypertrophy/hypotrophy "
    "hyperplasia/hypoplasia typical/atypical normal/abnormal displaced/nondisplaced "
    "displaced/undisplaced symptomatic/asymptomatic prednisone/prednisolone "
    "vinblastine/vincristine cefazolin/ceftazidime dopamine/dobutamine hydralazine/hydroxyzine "
    "metformin/metronidazole mastitis/mastoiditis T1/T2 C5/C6 L4/L5 II/III",
    "es": "izquierdo/derecho izq./der. izquierda/bilateral proximal/distal íleon/ilion "
    "uréter/uretra peroneo/perineo carpo/tarso normal/anormal hiperdenso/hipodenso "
    "prednisona/prednisolona intradural/extradural año/ano caña/cana alguno/ninguno C5/C6",
    "zh": "左/右 左侧/双侧 上/下 内侧/外侧 近端/远端 正常/不正常 正常/异常 高密度/低密度 "
    "髂骨/回肠 输尿管/尿道 胆囊/胆管 肾/肾上腺 胫骨/腓骨 动脉/静脉 良性/恶性 典型/非典型 "
    "泼尼松/泼尼松龙 有/无",
}
SAID_OF: dict[Language, str] = {
    "en": "{}|**{}**|{} lung|no {} effusion|The answer is {}.|The chest X-ray shows {}.|"
    "Yes, {}|No, {}|Yes. It is {}.|No. It is {}.|Yes. {}.|There is {} disease.|"
    "There is no {} disease.|Diagnosis: {}|The heart is {}.|2 {}|liver and {}|{} or mass|"
    "The lesion is seen in the {}.",
    "es": "{}|**{}**|pulmón {}|La respuesta es {}.|La radiografía muestra {}.|Sí, {}|No, {}|"
    "Sí. Es {}.|No. Es {}.|Hay {}|No hay {}|El corazón es {}|hígado y {}|Se encuentra en {}.",
    "zh": "{}|**{}**|{}肺|答案是{}。|图像显示{}。|是，{}|不是，{}|是的。它是{}。|没有。{}。|"
    "图中有{}结节|未见{}|病变位于{}|诊断：{}|2个{}",
}
ASKED: dict[Language, tuple[str, ...]] = {
    "en": ("", EFFUSION, "Is the heart normal?", "Where is it?", "Which side?", COUNT["en"]),
    "es": ("", "¿Hay derrame pleural?", "¿Es normal el corazón?", "¿Dónde está?", COUNT["es"]),
    "zh": ("", "图中有胸腔积液吗？", "心脏正常吗？", "病变在哪里？", COUNT["zh"]),
}


@pytest.mark.parametrize("language", APART)
def test_sides_organs_drugs_and_prefixes_tell_answers_apart_in_any_sentence(language):
    for one, other in (pair.split("/") for pair in APART[language].split()):
        for form in SAID_OF[language].split("|"):
            for question in ASKED[language]:
                said = [form.format(word) for word in (one, other)]
                assert meaning(said[0], language, question) != meaning(
                    said[1], language, question
                ), (said, question)


def test_articles_are_taken_off_in_their_own_language_only():
    assert meaning("el pulmón", "es") == meaning("pulmón", "es")
    assert meaning("el pulmón", "en") != meaning("pulmón", "en")
    assert meaning("the lung", "es") != meaning("lung", "es")
    assert meaning("the lung", "zh") == meaning("lung", "zh")  # whatever is not Chinese there


def test_every_phrase_has_one_meaning_and_is_found():
    """As the table has it: lower case, no hyphens, nothing that another rule would change first."""
    assert not YES & NO
    for phrase, name in SYNONYMS.items():
        assert meaning(phrase) == (name,), phrase
        assert meaning(f"**{phrase}.**") == (name,), phrase
        assert phrase not in YES | NO | NUMBERS.keys()
    for words, said in ((YES, "yes"), (NO, "no")):
        assert {meaning(word) for word in words} == {(said,)}


@pytest.mark.parametrize("nothing", ["", " . ", ",", "。", "，、", "\n", "**", "`…`"])
def test_nothing_means_nothing(nothing):
    assert meaning(nothing) == ()


@pytest.mark.parametrize("language", SETS)
def test_no_two_answers_of_the_sets_are_merged_that_nobody_read(language):
    """All pairs of the distinct answers of SLAKE, VQA-RAD and VQA-Med 2019, without a question and
    under one of each kind that has rules of its own."""
    asked = asked_in_the_sets(language)
    found = merged(language, asked, ("yes_no", "count", "place"), styles=False)
    assert not unread(pairs_of(found))


def test_a_merge_that_nobody_read_is_found():
    """The benchmark's exit status hangs on it."""
    found = {
        ("1",): {"1", "one"},
        ("left",): {"left", "left side", "right"},
        ("a",): {"a, b", "b and a"},
    }
    assert len(pairs_of(found)) == 5
    assert unread(pairs_of(found)) == {("left", "right"), ("left side", "right")}


@pytest.mark.parametrize("language", SETS)
def test_what_published_models_say_meets_the_short_answer(language):
    """Over every fortieth question of the sets, in the styles of six families."""
    found = met(language, asked_in_the_sets(language)[::40])
    assert share(found) >= BAR, found
    assert all(equal / said >= BAR for equal, said in found.values()), found


@pytest.mark.parametrize("language", SETS)
def test_what_offers_or_doubts_an_answer_claims_just_that(language):
    """Over some questions of the sets, in the same styles: most is parted, nothing wrongly."""
    asked = asked_in_the_sets(language)
    for right, whole, said in claimed(language, asked[:: len(asked) // 60]).values():
        assert right + whole == said and right / said >= BAR


@cache
def asked_in_the_sets(language: Language) -> list[tuple[str, str]]:
    try:
        return pairs(Path(os.environ.get("CONSILIUM_DATA", "nowhere")), language)
    except DataError as error:
        if os.environ.get("CONSILIUM_REQUIRE_DATA") == "1":
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("language", "question", "said"),
    [
        ("en", "How many nodules are there?", "A number of nodules are seen."),
        ("en", "How many cysts are there?", "There are a number of cysts."),
        ("es", "¿Cuántos nódulos hay?", "un número de nódulos"),
    ],
)
def test_a_number_of_them_is_not_one(language, question, said):
    assert meaning(said, language, question) != meaning("1", language, question)
