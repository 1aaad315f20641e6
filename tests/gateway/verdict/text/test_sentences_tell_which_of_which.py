"""Answers in sentences: which thing is in which, how many of which, and what only may be so."""

import pytest

from gateway.contract import Language
from gateway.verdict.text.claims import claims

# A question, and two answers to it.
APART = """
# The greater of two, and what is in which.
¿Es la arteria mayor que la vena? | sí | Es mayor la vena que la arteria.
¿Es el hígado más grande que el bazo? | sí | Es más grande el bazo que el hígado.
¿Es el nódulo más grande que la masa? | sí | Es más grande la masa que el nódulo.
¿Es la aorta más ancha que la pulmonar? | sí | Es más ancha la pulmonar que la aorta.
¿Es el hígado menor que el bazo? | sí | Es menor el bazo que el hígado.
¿Es el hígado más denso que el bazo? | no | No es más denso el bazo que el hígado.
¿Es mayor el hígado que el bazo? | sí | El hígado y el bazo son mayores.
¿Está el nódulo en el quiste? | sí | El quiste está en el nódulo.
¿Está el nódulo en el quiste? | no | El quiste no está en el nódulo.
# In the left of a thing, or to the left of it.
Is there a mass in the left kidney? | yes | There is a mass to the left of the kidney.
Is the catheter in the right atrium? | yes | The catheter is to the right of the atrium.
Is the catheter in the right atrium? | no | The catheter is not to the right of the atrium.
Is the mass in the anterior mediastinum? | yes | The mass is anterior to the mediastinum.
Is the tumor in the superior mediastinum? | yes | The tumor is superior to the mediastinum.
Is the mass in the lateral ventricle? | yes | The mass is lateral to the ventricle.
Is the lesion in the medial femur? | yes | The lesion is medial to the femur.
Is the fluid posterior to the bladder? | yes | The fluid is in the posterior bladder.
What is in the left lung? | A mass is in the left lung. | A mass is left of the lung.
# What holds, and what is held.
Does the mass contain fat? | yes | The mass is in the fat.
Does the cyst contain a nodule? | yes | The cyst is in the nodule.
Does the tumor contain vessels? | yes | The tumor is in the vessel.
Does the tumor contain vessels? | no | The tumor is not in the vessel.
Does the kidney have a tumor? | yes | The kidney is in the tumor.
¿Tiene la masa grasa? | sí | La masa está en la grasa.
结节在囊肿里吗？ | 是 | 结节里有囊肿。
Where is the nodule? | In the cyst. | The cyst is in the nodule.
Where is the fat? | In the mass. | The mass is in the fat.
# So many of which.
How many ribs have fractures? | 3 ribs | 3 fractures
How many lobes contain nodules? | five lobes | There are 5 nodules.
How many vertebrae have metastases? | 4 vertebrae | 4 metastases
How many kidneys have stones? | 2 | 2 stones
How many kidneys have stones? | one kidney | a stone
How many lesions are in the kidneys? | 2 lesions | 2 kidneys
How many lesions are in the lungs? | 0 | no lungs
How many pairs of ribs are there? | 12 pairs | 12 ribs
How many groups of lymph nodes are enlarged? | 3 groups | 3 lymph nodes
# The number of one of them.
How many rib fractures are there? | 4 | There is a fracture of rib 4.
How many rib fractures are there? | 4 | Fracture of rib 4
How many ribs have fractures? | 3 | Rib 3 has a fracture.
How many segments have lesions? | 7 | Segment 7 has a lesion.
How many ribs are fractured? | 4 | The fractured rib is number 4.
How many ribs are fractured? | 4 | Fractured: rib 4
How many left ribs are fractured? | 7 | left rib 7
How many discs are degenerated? | 4 | Degenerated disc 4
How many vertebral levels are affected? | 5 | Affected at level 5
# What may be so.
Is there a pleural effusion? | yes | There can be a pleural effusion.
Is there a pneumothorax? | yes | A pneumothorax can be present.
¿Está el corazón normal? | sí | Puede que el corazón esté normal.
¿Está agrandado el corazón? | sí | Puede que el corazón esté agrandado.
¿Está visible el bazo? | sí | Puede que el bazo esté visible.
心脏是否增大？ | 是 | 心脏可以增大
图中有气胸吗？ | 有 | 可以有气胸
Can the mass be resected? | yes | The mass was resected.
Can the mass be resected? | no | The mass has not been resected.
# To a question for what is not there, or for nothing wrong.
Is there loss of gray-white differentiation? | no | It is absent.
Is there loss of lung markings? | no | Not seen.
Is there interval resolution of the pneumothorax? | no | None seen.
Is there amputation of the finger? | no | It is absent.
Is there evidence of prior cholecystectomy? | no | Absent.
Is the present examination normal? | no | Negative.
Is there a normal study? | no | Negative.
# A part of such a question.
Is this a non-contrast CT? | yes | Yes, this is a contrast CT.
Is there loss of disc height? | yes | Yes, there is disc height.
Is there a lack of contrast? | yes | Yes, there is contrast.
Is there a lack of contrast? | no | No, there is no contrast.
Is there resolution of the effusion? | yes | Yes, there is an effusion.
Is there resolution of the effusion? | no | No, there is no effusion.
Is the fracture healed? | yes | Yes, there is a fracture.
Does the mass displace the trachea to the left? | yes | Yes, the trachea is on the left.
# What takes a yes back.
Is there a pleural effusion? | yes | Yes. The effusion was drained.
Is there a fracture? | yes | Yes. The fracture has healed.
Is there a mass? | yes | Yes. The mass was resected.
¿Hay fractura? | sí | Sí. La fractura está consolidada.
有骨折吗？ | 有 | 有。骨折已愈合。
图中有胸腔积液吗？ | 有 | 有。积液已吸收。
图中有肿块吗？ | 有 | 有。肿块已切除。
Is there a mass? | Yes. The mass is in the thalamus. | Yes. The mass is in the cervix.
Is there a mass? | Yes. The mass is in the frontal lobe. | Yes. The mass is in the temporal lobe.
Is there a mass? | yes | There was a mass.
Is there a mass? | yes | There has been a mass.
Is there a mass? | yes | Yes, there were masses.
¿Cuál es el diagnóstico? | neumonía | Fue neumonía.
# What asks to be agreed with.
Is there a mass in the left lung? | no | There is a mass in the left lung, isn't there
Is there a mass? | no | There is a mass, is there not
¿Hay derrame? | no | Hay derrame, no es cierto
有骨折吗？ | 没有 | 没有骨折吧
# A sign that may take it back.
Is there a mass? | yes | yes (-)
Is there a mass? | no | No (+)
# The image's left may be the patient's right.
Which side is affected? | left | Left in the image.
Which side is affected? | left | On the left side in this picture
¿Qué lado está afectado? | derecho | Derecha en la imagen
# One of two things that are asked for.
Is there any mass or nodule? | no | There is no mass.
Is there a fracture or dislocation? | no | No fracture, dislocation.
Is there a fracture or dislocation? | no | No, there is no fracture.
Is there a fracture or dislocation? | no | There is no dislocation and a fracture.
Is there a fracture or dislocation? | yes | There is a fracture.
Is there a mass in or near the liver? | no | There is no mass in the liver.
¿Hay fractura o luxación? | no | No hay fractura.
Is the lesion benign or malignant? | no | The lesion is not benign or malignant.
# A thing is no sentence.
Does the image show a fracture? | yes | fracture
Does this image use contrast? | yes | contrast
Does the image demonstrate a mass? | yes | mass
Does the tumor invade the liver? | yes | The liver invades the tumor.
Does the tumor invade the liver? | yes | Invasive tumor of the liver
心脏增大吗？ | 是 | 肝脏增大
# Both of two things are no sides.
Is there effusion or consolidation? | both | bilateral
Is there blood in the urine or in the bladder? | both | bilateral
Which lung fields are abnormal, upper or lower? | both | bilateral
¿Hay derrame o neumotórax? | ambos | bilateral
# An order.
List the organs starting with the largest. | liver, spleen | spleen, liver
Name the organs in decreasing size. | liver, spleen | spleen, liver
Name the organs, larger before smaller. | liver, spleen | spleen, liver
List the organs, most affected to least affected. | lung, liver | liver, lung
What is the sequence of enhancement? | arterial, venous | venous, arterial
Name the structures clockwise. | aorta, vena cava | vena cava, aorta
List the vertebrae from the top down. | L3, L4 | L4, L3
¿Qué órganos se ven, empezando por el mayor? | hígado, bazo | bazo, hígado
请按大小列出器官。 | 肝脏、脾脏 | 脾脏、肝脏
# A right side.
Do the kidneys have stones? | yes | R: yes
Describe the kidneys. | normal | R: normal
# The middle one.
病变在中脑吗？ | 是 | 病变在脑里。
病变在中脑吗？ | 不是 | 病变不在脑里。
病变在中耳吗？ | 是 | 病变在耳里。
病变在右肺中叶吗？ | 是 | 病变在右肺叶。
# The image, and what is in it.
Is the heart rotated? | yes | The image is rotated.
How many nodules are seen? | 3 | Image 3.
How many nodules are there? | 1 | One image.
How many nodules are there? | 1 | There is one picture.
¿Cuántos nódulos hay? | 3 | Tres imágenes.
有几个结节？ | 1 | 一张图片
有几个结节？ | 0 | 没有图片
有骨折吗？ | 没有 | 没有图片
有骨折吗？ | 没有 | 无图像
有骨折吗？ | 有 | 有影像
Is there a fracture? | no | The image is not visible.
Is there a fracture? | no | The picture is absent.
Is there a fracture? | yes | The image is present.
¿Cuántos nódulos se ven? | 3 | Figura 3
# What something is positive for, or negative.
Is there a pleural effusion? | no | Not negative for pleural effusion.
Is there a pleural effusion? | no | Negative for effusion.
Is there a pleural effusion? | no | Negative for left pleural effusion.
Is there a pleural effusion? | no | Negative for pneumothorax.
Is there a pleural effusion? | no | Negative for pleural effusion, positive for pneumothorax.
Is there a pleural effusion? | no | Probably negative for pleural effusion.
Is there a pleural effusion? | no | False negative for pleural effusion.
Is there a pleural effusion? | yes | False positive for pleural effusion.
Is there a pleural effusion? | yes | Weakly positive for pleural effusion.
Is there a pleural effusion? | yes | Yes, negative for pleural effusion.
Is there a pleural effusion? | no | No. Positive for a small amount.
Is there a missing tooth? | yes | Negative for a tooth.
Is there a missing tooth? | no | Negative for a tooth.
Is the study negative for fracture? | no | The study is negative for fracture.
Is the biopsy positive for cancer? | yes | It is positive for HPV.
¿Hay fractura? | no | Negativo para luxación.
¿Hay fractura? | no | No es negativo para fractura.
¿Hay fractura? | sí | Falso positivo para fractura.
Is there a missing tooth? | no | Missing tooth: absent
# Of 是否 all that it asks, and no other thing.
是否骨折？ | 是 | 肋骨骨折
是否骨折？ | 是 | 骨折可能
是否骨折？ | 是 | 骨折？
是否骨折？ | 是 | 骨折吧
是否骨折？ | 是 | 骨折史
是否骨折？ | 否 | 无明显骨折
是否骨折？ | 否 | 不是没有骨折
是否骨折？ | 否 | 未必骨折
是否存在骨折？ | 是 | 骨折
是否骨折或脱位？ | 否 | 没有骨折
是否左侧？ | 否 | 右侧
左侧是否比右侧大？ | 否 | 右侧大
是否无骨折？ | 否 | 无骨折
是否小细胞肺癌？ | 否 | 非小细胞肺癌
是否稳定型心绞痛？ | 否 | 不稳定型心绞痛
是否典型增生？ | 否 | 不典型增生
"""
TOGETHER = """
Is there a pleural effusion? | no | Negative for pleural effusion.
Is there a pleural effusion? | no | The image is negative for a pleural effusion.
Is there a pleural effusion? | no | No, negative for pleural effusion.
Is there a pleural effusion? | no | Not positive for pleural effusion.
Is there a pleural effusion? | no | Pleural effusion: negative
Is there a pleural effusion? | yes | Positive for pleural effusion.
Is there a pleural effusion? | yes | Yes. It is positive for pleural effusion.
Is there a pleural effusion? | yes | Pleural effusion: present
Is there evidence of a fracture? | no | No evidence.
Is this pneumonia? | no | Negative for pneumonia.
Are there any fractures? | no | There aren't any.
Is there a fracture or dislocation? | no | Negative for fracture or dislocation.
Is the test positive for cancer? | yes | The test is positive for cancer.
Is the test negative for cancer? | yes | Yes, it is negative for cancer.
Is the liver normal? | yes | It appears normal.
¿Hay fractura? | no | Negativo para fractura.
¿Hay fractura? | no | El paciente no presenta fractura.
¿Hay fractura? | no | Ninguna.
¿Hay fractura? | sí | Positivo para fractura.
¿Hay fractura? | sí | Fractura presente.
¿Hay fractura? | sí | Sí la hay.
是否骨折？ | 是 | 骨折
图片看起来是否正常？ | 否 | 图像显示不正常。
图片看起来是否正常？ | 是 | 这是正常。
左侧肋骨是否骨折？ | 是 | 骨折了。
病变是否为恶性？ | 是 | 恶性的
病变是否属于良性？ | 是 | 良性
Is there any mass or nodule? | no | There is no mass or nodule.
Is there a fracture or dislocation? | no | No fracture or dislocation is seen.
Is there a fracture or dislocation? | no | No, there is no fracture or dislocation.
Is there a fracture or dislocation? | no | There is no fracture and no dislocation.
Is there a fracture or dislocation? | yes | There is a fracture or dislocation.
Is there evidence of fracture, dislocation or edema? | no | No fracture, dislocation, or edema.
Is there a mass in or near the liver? | no | There is no mass in or near the liver.
¿Hay fractura o luxación? | no | No hay fractura o luxación.
¿Hay fractura o luxación? | no | No, no hay fractura ni luxación.
Was there a mass? | yes | There was a mass.
Were there any masses? | no | There were no masses.
Were there nodules in the liver? | yes | Yes, there are nodules in the liver.
Is there a mass? | yes | Yes, a mass was seen.
Where is the mass? | left lung | Left lung in the image.
¿Cuál fue la modalidad? | TC | La modalidad fue TC.
How many images are there? | 3 | 3 images
How many nodules are there? | 3 | There are 3 in the image.
Is there a fracture? | no | The image shows no fracture.
这是什么检查？ | CT | CT的图像
Is the heart enlarged? | yes | Enlarged.
Is the heart enlarged? | no | Not enlarged.
Is the heart enlarged? | yes | Yes, that is correct.
Is the heart enlarged | yes | It is enlarged.
Is there a pneumothorax? | yes | Definitely.
Is there a pneumothorax? | yes | Yes, definitely.
Is there a pneumothorax? | yes | There is.
Is there a pneumothorax? | yes | It is.
Is there a pneumothorax? | no | Not at all.
Is there a pneumothorax? | no | No, not at all.
Is there a pleural effusion? Answer yes or no. | no | No, there is no pleural effusion.
Is there a pleural effusion? Answer yes or no. | yes | Yes, there is a pleural effusion.
Is there an effusion or not? | no | There is no effusion.
In this image, is there a pleural effusion? | no | No, there is no pleural effusion.
What is the modality? | CT | The answer is "CT".
How many nodules are there? | 1 | There is a single nodule.
¿El corazón está agrandado? | sí | El corazón está agrandado.
¿El corazón está agrandado? | no | No, el corazón no está agrandado.
En esta imagen, ¿hay derrame pleural? | no | No, no hay derrame pleural.
¿Presenta el paciente derrame pleural? | no | No, no presenta derrame pleural.
¿Contiene la imagen el hígado? | sí | Sí, la imagen contiene el hígado.
¿Cuántas lesiones hay? | 1 | Una.
¿Cuántas lesiones hay? | 1 | Hay una.
¿Es más grande el hígado que el bazo? | sí | El hígado es más grande que el bazo.
¿Es el hígado más grande que el bazo? | sí | Es más grande el hígado que el bazo.
¿Hay neumotórax? | no | No se aprecia.
¿Hay neumotórax? | no | No, ninguno.
¿Hay neumotórax? | sí | Sí, efectivamente.
肺正常吗？ | 不是 | 不正常
肝脏大吗？ | 不是 | 不大
心脏是否增大？ | 否 | 没有增大
图中有气胸吗？ | 没有 | 没有看到
图中有气胸吗？ | 有 | 没错
图中有气胸吗？ | 有 | 是的，没错。
图像是什么模态？ | X光 | X线片
Are there any abnormalities? | no | None seen.
¿Hay algún hallazgo anormal? | no | No se observa.
Is there volume loss in the left lung? | no | None.
Does this high-resolution CT show nodules? | yes | Yes, there are nodules.
脑部有缺血吗? | 没有 | 未见
Is ascites present around the liver? | no | Absent.
Can you see a fracture? | yes | Yes, I can.
Are there organs that can digest food? | no | No organs that can digest food are seen.
Can the left ribs be evaluated? | no | The left ribs cannot be evaluated.
¿Se puede encontrar el pulmón en esta imagen? | no | El pulmón no se puede encontrar en esta imagen.
图片中包含可以消化食物的器官吗? | 不是 | 图中未见可以消化食物的器官
Does the liver exist in this picture? | yes | Yes. The liver appears normal.
Is the heart enlarged? | yes | Yes. The heart is larger than normal.
Is the heart displaced? | yes | Yes, it is displaced.
Is the liver lesion benign? | no | No, it is not benign.
Is the plane axial? | axial | Axial plane
Which side is affected, or both? | both | Bilateral
In this CT, which kidney is enlarged? | both | Both sides
How many lesions are there in the liver? | 0 | The liver has no lesions.
肝脏有多少个结节? | 0 | 肝脏没有结节
How many arteries supply the kidney? | 2 | Two arteries supply the kidney.
图中有几种疾病? | 2 | 两种疾病
Is the trachea midline? | yes | The trachea is in the midline.
Are there cysts in the liver and spleen? | yes | There are cysts in the liver and in the spleen.
Are any of the organs abnormal? | yes | Some of the organs are abnormal.
¿Hay neumonía en el pulmón derecho? | sí | El pulmón derecho tiene neumonía.
¿Es normal el hígado? | no | R: No
"""
# A question, what is a yes to it, and the same denied, which is a no.
BOTH_WAYS = """
Does the tumor invade bone? | The tumor invades bone. | The tumor does not invade bone.
Does the lesion enhance? | The lesion enhances. | The lesion does not enhance.
Does it cross the midline? | It crosses the midline. | It does not cross the midline.
Does it end in the atrium? | It ends in the atrium. | It does not end in the atrium.
Do the lungs look normal? | The lungs look normal. | The lungs do not look normal.
Did the fracture heal? | The fracture healed. | The fracture did not heal.
Does it demonstrate a mass? | It demonstrates a mass. | It does not demonstrate a mass.
Is the heart normal? | Normal. | Not normal.
Is the heart enlarged? | Enlarged. | Not enlarged.
Is the lesion calcified? | The lesion is calcified. | The lesion is not calcified.
Is there a mass? | There is a mass. | There is no mass.
¿Es normal el corazón? | Normal. | No normal.
¿Está agrandado el corazón? | Agrandado. | No agrandado.
¿Hay derrame? | Hay derrame. | No hay derrame.
心脏正常吗？ | 正常 | 不正常
心脏增大吗？ | 增大 | 不增大
是否骨折？ | 骨折 | 无骨折
骨折是否移位？ | 移位 | 未移位
肿块是否钙化？ | 钙化 | 没有钙化
血管是否狭窄？ | 狭窄 | 不狭窄
病变是否为恶性？ | 恶性 | 不是恶性
心脏增大了吗？ | 增大了 | 没有增大
肿瘤侵犯肝脏吗？ | 肿瘤侵犯肝脏。 | 肿瘤没有侵犯肝脏。
"""


def cases(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line and not line.startswith("#")]
    return [line.split(" | ") for line in lines]


def claimed(question: str, said: str) -> set[tuple[str, ...]]:
    chinese = any("\u3400" <= character <= "\u9fff" for character in question)
    language: Language = "zh" if chinese else "es" if "¿" in question else "en"
    return {claim.meaning for claim in claims(said, language, question)}


@pytest.mark.parametrize(("question", "one", "other"), cases(APART))
def test_what_is_turned_round_is_another_answer(question: str, one: str, other: str) -> None:
    assert claimed(question, one).isdisjoint(claimed(question, other))


@pytest.mark.parametrize(("question", "said", "denied"), cases(BOTH_WAYS))
def test_what_is_a_no_is_a_yes_without_its_negation(question: str, said: str, denied: str) -> None:
    """Else one side of a dispute has the votes that the other loses."""
    assert (claimed(question, said), claimed(question, denied)) == ({("yes",)}, {("no",)})


@pytest.mark.parametrize(("question", "one", "other"), cases(TOGETHER))
def test_the_same_in_a_sentence_is_the_same(question: str, one: str, other: str) -> None:
    assert claimed(question, one) == claimed(question, other)
