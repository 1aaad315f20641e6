"""`each_image`: a worker that sees one image at a time is asked about each of a case of several."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from gateway.asking.each_image import as_one, in_its_own_words, one_by_one
from gateway.case import Case, CaseImage
from gateway.contract import (
    Alternative,
    Answer,
    AnswerError,
    ImageShown,
    Language,
    Likeness,
    Options,
    SeriesShown,
)
from gateway.settings import SettingsError, load_settings
from tests.conftest import picture
from tests.dicoms import stack
from tests.gateway.asking.test_the_panel_survives_its_workers import ask, failures

SEAT = 'languages = ["en", "es", "zh"]\neach_image = true'
SIDES = (32, 40, 48)  # by which a worker tells one image from another
IMAGES = [base64.b64encode(picture(size=(side, 32))).decode() for side in SIDES]
SEVERAL = {"images": IMAGES, "question": "Is it healthy?"}


def shown(request: dict[str, Any]) -> list[int]:
    """Which images it holds, by their widths."""
    parts = [p["image_url"]["url"] for p in request["messages"][0]["content"][:-1]]
    sizes = [base64.b64decode(part.partition(",")[2])[16:20] for part in parts]
    return [int.from_bytes(size, "big") for size in sizes]


def question(request: dict[str, Any]) -> str:
    text = request["messages"][0]["content"][-1]["text"]
    return text.removeprefix("Question: ").removesuffix(" Answer:")


def test_each_image_is_asked_about_and_all_count(vllm, gateway):
    worker = vllm(lambda request: "no" if shown(request) == [40] else "yes")
    together = vllm("yes")
    seats = (SEAT, 'languages = ["en"]\nmax_images = 4')
    verdict = ask(gateway([worker, together], seats=seats), **SEVERAL).json()
    assert sorted(map(shown, worker.requests)) == [[32], [40], [48]]
    assert list(map(shown, together.requests)) == [[32, 40, 48]]
    own, other = verdict["answers"]
    assert own["text"] == "yes" and own["confidence"] == pytest.approx(0.6)
    assert [(e["image"], e["text"]) for e in own["by_image"]] == [(1, "yes"), (2, "no"), (3, "yes")]
    assert [(a["begins"], a["probability"]) for a in own["alternatives"]] == [
        ("no", pytest.approx(0.3))
    ]
    assert other["by_image"] == [] and verdict["answer"] == "yes"


def test_one_image_is_asked_about_as_ever(vllm, gateway):
    worker = vllm("yes")
    verdict = ask(gateway([worker], seats=(SEAT,)), question="Image 1: Is it healthy?").json()
    assert list(map(question, worker.requests)) == ["Image 1: Is it healthy?"]
    assert verdict["answers"][0]["by_image"] == []


def test_a_failure_at_one_image_is_the_workers(vllm, gateway):
    """What was not read does not pass for read."""
    broken = vllm(lambda request: "" if shown(request) == [40] else "yes")
    url = gateway([broken, vllm("yes")], seats=(SEAT, SEAT))
    assert failures(ask(url, **SEVERAL)) == {"w0": "empty"}


def test_the_panel_says_how_many_images_it_takes(vllm, gateway):
    import httpx

    url = gateway([vllm("yes")], seats=(SEAT,), limits="max_images = 3")
    assert httpx.get(f"{url}/panel").json()["workers"][0]["max_images"] == 3


@pytest.mark.parametrize(
    "asked", ["Which image shows the tumor?", "Compare image 1 and image 2.", "Image 7: healthy?"]
)
def test_what_only_the_images_together_can_answer_is_not_asked_of_it(vllm, gateway, asked):
    worker, together = vllm("yes"), vllm("the first")
    seats = (SEAT, 'languages = ["en"]\nmax_images = 4')
    both = gateway([worker, together], seats=seats)
    assert failures(ask(both, **SEVERAL | {"question": asked})) == {"w0": "not_eligible"}
    assert not worker.requests
    refused = ask(gateway([worker], seats=(SEAT,)), **SEVERAL | {"question": asked})
    assert refused.status_code == 422 and "one at a time" in refused.json()["detail"]


def case(asked: str, language: Language, images: int = 3) -> Case:
    shown = tuple(CaseImage(b"", str(number), (32, 32)) for number in range(images))
    return Case("a", asked, shown, language, None, None, Options())


HEALTHY = case("Is it healthy?", "en")


@pytest.mark.parametrize(
    ("language", "asked", "number", "alone"),
    [
        ("en", "Image 2: What modality is used?", 2, "What modality is used?"),
        ("en", "In the third slice, is the liver healthy?", 3, "Is the liver healthy?"),
        ("en", "In the last view: what is it?", 3, "What is it?"),
        ("en", "What modality is the second image?", 2, "What modality is this image?"),
        ("en", "What plane is scan #1?", 1, "What plane is this image?"),
        ("en", "Is there a mass in picture no. 2?", 2, "Is there a mass in this image?"),
        ("es", "Imagen 3: ¿Está sano el hígado?", 3, "¿Está sano el hígado?"),
        ("es", "En la primera imagen: ¿Qué es?", 1, "¿Qué es?"),
        ("es", "¿Hay un tumor en la última imagen?", 3, "¿Hay un tumor en esta imagen?"),
        ("zh", "图3：肝脏健康吗?", 3, "肝脏健康吗?"),
        ("zh", "第二张图像中：这是什么平面?", 2, "这是什么平面?"),
        ("zh", "最后一张图片是CT吗?", 3, "这张图像是CT吗?"),
        ("zh", "第一张图的成像方式是什么?", 1, "成像方式是什么?"),
        ("en", "Image 2 shows which organ?", 2, "This image shows which organ?"),
        ("en", "Image II: what is it?", 2, "What is it?"),
        ("en", "Image two: which view is this?", 2, "Which view is this?"),
        ("en", "image2: healthy?", 2, "Healthy?"),
        ("en", "In image 2 of 3, is it healthy?", 2, "Is it healthy?"),
        ("en", "Image (2): is it healthy?", 2, "Is it healthy?"),
        ("en", "Is the rib in the 2nd X-ray broken?", 2, "Is the rib in this image broken?"),
        ("en", "What is the image 1?", 1, "What is this image?"),
        ("en", "Is the first rib broken in figure 2?", 2, "Is the first rib broken in this image?"),
        ("es", "¿Hay masa en el tercer corte?", 3, "¿Hay masa en esta imagen?"),
        ("es", "¿Hay masa en la imagen numero 2?", 2, "¿Hay masa en esta imagen?"),
        ("es", "Última imagen: ¿qué es?", 3, "¿qué es?"),
        ("zh", "2号图：是什么?", 2, "是什么?"),
        ("zh", "图像 2：是什么?", 2, "是什么?"),
        ("zh", "第二张是什么?", 2, "这张图像是什么?"),
        (
            "en",
            "Is the left lung bigger than the right in image 2?",
            2,
            "Is the left lung bigger than the right in this image?",
        ),
        ("en", "Would you say that image 2 is a CT?", 2, "Would you say that this image is a CT?"),
        ("es", "¿Cree que la imagen 2 es normal?", 2, "¿Cree que esta imagen es normal?"),
    ],
)
def test_a_question_that_names_an_image_is_asked_about_that_one(language, asked, number, alone):
    assert [(n, one.question) for n, one in one_by_one(case(asked, language))] == [(number, alone)]


@pytest.mark.parametrize(
    ("language", "asked"),
    [
        ("en", "Which imaging modality is used?"),
        ("en", "What type of image is this?"),
        ("en", "Is the heart bigger than the liver?"),
        ("en", "Are there 2 nodules, as in grade 3 disease?"),
        ("es", "¿Qué modalidad se usó para obtener esta imagen?"),
        ("es", "¿Qué tipo de imagen es?"),
        ("zh", "图像里包含的区域属于身体哪个部分?"),
        ("zh", "图中心脏和肝脏哪个更大?"),
        ("zh", "图中有几个肾脏?"),
        ("en", "Which view is this?"),
        ("en", "Is this slice 3 mm thick?"),
        ("en", "Is the scan 64-slice, and the image 3 dimensional?"),
        ("en", "Is the left lung comparable to the right?"),
        ("en", "Is it image 1.5 or 3?"),
        ("es", "¿Qué proyección es?"),
        ("es", "¿Es una proyección anterior?"),
        ("zh", "这一张图像是什么?"),
        ("zh", "图像3D还是二维?"),
        ("zh", "心电图2导联正常吗?"),
        ("zh", "是否使用了对比剂?"),
        ("zh", "图像显示了什么病理变化?"),
    ],
)
def test_others_are_asked_about_every_image(language, asked):
    assert [(n, one.question) for n, one in one_by_one(case(asked, language))] == [
        (1, asked), (2, asked), (3, asked)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("language", "asked"),
    [
        ("en", "Has it changed between image 1 and image 3?"),
        ("en", "What is in the other images?"),
        ("es", "¿Qué imagen muestra el tumor?"),
        ("es", "Compare la primera imagen con la segunda imagen."),
        ("zh", "哪张图像是CT?"),
        ("zh", "第一张图像和第二张图像一样吗?"),
        ("en", "Are images 1 and 2 both CT?"),
        ("en", "Is there a mass in image 2 or 3?"),
        ("en", "Is there a mass in the second and third images?"),
        ("en", "Is the tumor larger in the second image than in the first?"),
        ("en", "Do both images show a tumor?"),
        ("en", "How many of the images show a tumor?"),
        ("en", "Do these images show the same organ?"),
        ("en", "Has the large tumor grown?"),
        ("en", "Image 12: healthy?"),
        ("es", "¿Hay masa en la imagen 2 y 3?"),
        ("es", "¿Es mayor en la segunda imagen que en la primera?"),
        ("es", "¿Hay masa en ambas imagenes?"),
        ("zh", "图2和3有肿块吗?"),
        ("zh", "第二、三张图像有肿块吗?"),
        ("zh", "两张图像都是CT吗?"),
        ("zh", "图10是什么?"),
        ("en", "Except for image 1, is there edema?"),
        ("en", "Is there edema in images other than image 1?"),
        ("en", "Ignoring the first image, is there edema?"),
        ("en", "Is it worse than in image 1?"),
        ("en", "Is the lesion new since the first image?"),
        ("en", "Does it look the same as in image 2?"),
        ("en", "Did the effusion increase?"),
        ("en", "Is it bigger than before?"),
        ("en", "What is different?"),
        ("en", "Which shows edema?"),
        ("en", "Is there any change?"),
        ("en", "In the other one, is there edema?"),
        ("en", "Do the pictures agree?"),
        ("en", "What is in the penultimate image?"),
        ("es", "¿Hay edema, excepto en la imagen 1?"),
        ("es", "¿Hay mas nodulos que en la imagen 2?"),
        ("es", "¿Es mayor que en la primera imagen?"),
        ("es", "¿Creció la lesión?"),
        ("es", "¿Qué hay en la penúltima imagen?"),
        ("zh", "除图1外,有水肿吗?"),
        ("zh", "倒数第二张图有水肿吗?"),
        ("zh", "比第一张图大吗?"),
        ("zh", "与图1相比，病变大吗?"),
        ("zh", "病变增大了吗?"),
    ],
)
def test_it_is_told_what_cannot_be_seen_in_one_image(language, asked):
    assert one_by_one(case(asked, language)) is None


def viewed(asked, language, *views):
    """Who is asked what, of images that are each what is said of them."""
    images = tuple(
        CaseImage(b"", str(number), (32, 32), shown=ImageShown(view=view))
        for number, view in enumerate(views)
    )
    seen = one_by_one(replace(case(asked, language), images=images))
    return seen and [(number, one.question) for number, one in seen]


@pytest.mark.parametrize(
    ("language", "asked", "alone"),
    [
        ("en", "In the lateral view, is there an effusion?", "Is there an effusion?"),
        ("en", "Lateral: is there an effusion?", "Is there an effusion?"),
        ("en", "Is an effusion seen on the lateral?", "Is an effusion seen on this image?"),
        ("en", "Does the lateral radiograph show one?", "Does this image show one?"),
        ("es", "¿Hay derrame en la lateral?", "¿Hay derrame en esta imagen?"),
        ("es", "En la proyección lateral, ¿hay derrame?", "¿hay derrame?"),
        ("zh", "侧位片上有积液吗？", "有积液吗？"),
        ("zh", "侧位有积液吗？", "这张图像有积液吗？"),
    ],
)
@pytest.mark.parametrize("view", ["lateral", "Lateral", "侧位"])
def test_an_image_is_named_by_what_it_is_said_to_be(language, asked, alone, view):
    assert viewed(asked, language, "frontal", view, None) == [(2, alone)]


@pytest.mark.parametrize(
    ("language", "asked"),
    [
        ("en", "Is this the lateral view?"),
        ("en", "Is the lateral lobe enlarged?"),
        ("en", "Is there an effusion on the lateral side?"),
        ("es", "¿Está afectada la pared lateral?"),
        ("zh", "这是侧位片吗？"),
    ],
)
def test_what_is_no_name_of_a_view_names_no_image(language, asked):
    assert viewed(asked, language, "frontal", "lateral") == [(1, asked), (2, asked)]


def test_a_view_of_several_images_names_none_and_two_views_are_seen_together():
    asked = "In the lateral view, is there an effusion?"
    assert viewed(asked, "en", "lateral", "lateral") == [(1, asked), (2, asked)]
    both = "Is it seen in the frontal view and in the lateral view?"
    assert viewed(both, "en", "frontal", "lateral") is None


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ("Is there a mass in slice 40?", 2),
        ("What is in the last slice?", 3),
        ("Slice 2: CT?", None),
    ],
)
def test_of_a_series_a_place_is_a_slices(asked, number):
    """Slices 4 to 9, 40 and 90 of 90: the second image is not the second slice."""
    series = [
        SeriesShown(first=first, last=last, of=90) for first, last in [(4, 9), (40, 40), (90, 90)]
    ]
    shown = tuple(
        CaseImage(b"", str(each.first), (32, 32), shown=ImageShown(series=each)) for each in series
    )
    seen = one_by_one(replace(case(asked, "en"), images=shown))
    assert (seen and [n for n, _ in seen]) == (number and [number])


def test_over_grey_the_same_slice_is_asked_about(vllm, gateway):
    worker = vllm("yes")
    url = gateway([worker], seats=(SEAT,), panel="quorum = 1\ngrounding = true")
    images = [base64.b64encode(each).decode() for each in stack(9)]
    sent = {"images": images, "slices": "6-9", "question": "In slice 7, is it healthy?"}
    response = ask(url, **sent, options={"grounding": True})
    assert response.status_code == 200, response.text
    [answer] = response.json()["answers"]
    assert [each["image"] for each in answer["by_image"]] == [2]
    assert response.json()["images"][1]["series"]["first"] == 7
    assert list(map(question, worker.requests)) == ["Is it healthy?"] * 2
    assert response.json()["grounding"] is not None


def test_choices_may_name_images_too():
    chosen = replace(case("Where is the tumor?", "en"), choices=("Image 1", "Image 2"))
    assert one_by_one(chosen) is None


def test_what_others_said_names_no_image(vllm, gateway):
    """In a second round the case is still about the images that it was about."""
    alone = vllm("no")
    together = vllm("Yes, in the second image and in image 3; it has changed.")
    seats = (SEAT, 'languages = ["en"]\nmax_images = 4')
    response = ask(gateway([alone, together], seats=seats), **SEVERAL, options={"rounds": 2})
    assert response.status_code == 200, response.text
    assert sorted(map(shown, alone.requests)) == [[32], [32], [40], [40], [48], [48]]
    assert "Other readers said: Yes, in the second image" in question(alone.requests[-1])


def test_the_same_image_is_asked_about_once():
    images = (CaseImage(b"", "same", (32, 32)),) * 3
    asked = Case("a", "Is it healthy?", images, "en", None, None, Options())
    assert [number for number, _ in one_by_one(asked)] == [1]


def said(text: str, confidence: float | None, *others: tuple[str, float, bool]) -> Answer:
    keys = ("begins", "probability", "whole")
    told = tuple(Alternative(**dict(zip(keys, other, strict=True))) for other in others)
    return Answer(worker="w", text=text, confidence=confidence, alternatives=told, seconds=1)


def test_a_case_is_as_familiar_as_its_least_familiar_image():
    """What a memory tells of each image alone."""

    def told(image: float) -> Answer:
        likeness = Likeness(image=image, question=0.5, manner="slake")
        return Answer(worker="w0", text="yes", confidence=0.5, seconds=0, likeness=likeness)

    one = as_one([(1, told(0.9)), (2, told(0.2)), (3, told(0.7))], HEALTHY)
    assert one.likeness and one.likeness.image == 0.2


def test_beliefs_are_averaged_and_what_only_begins_an_answer_is_none():
    """By hand: CT (0.6 + 0.3) / 2, MRI (0.2 + 0.5) / 2."""
    one = as_one([
        (1, said("CT", 0.6, ("MRI", 0.2, True), ("X", 0.15, False))),
        (2, said("MRI", 0.5, ("CT", 0.3, True))),
    ], HEALTHY)  # fmt: skip
    assert (one.text, one.confidence) == ("CT", pytest.approx(0.45))
    assert [(a.begins, a.probability) for a in one.alternatives] == [("MRI", pytest.approx(0.35))]


def test_without_confidences_most_images_decide():
    one = as_one([(1, said("no", None)), (2, said("yes", None)), (3, said("yes", None))], HEALTHY)
    assert (one.text, one.confidence, one.alternatives) == ("yes", None, ())


@pytest.mark.parametrize(
    ("texts", "sure", "one"),
    [
        (("Yes", "yes.", "No"), (0.9, 0.8, 0.95), ("Yes", 1.7 / 3)),
        (("Yes", "No", "no", "yes", "It is healthy."), (None,) * 5, ("Yes", None)),
        (("No", "It is healthy.", "Yes"), (0.5, 0.4, 0.3), ("It is healthy.", 0.7 / 3)),
    ],
)
def test_what_means_the_same_is_one_belief(texts, sure, one):
    """In the wording that is believed most."""
    told = [said(text, each) for text, each in zip(texts, sure, strict=True)]
    found = as_one(list(enumerate(told, 1)), HEALTHY)
    assert (found.text, found.confidence) == (one[0], one[1] and pytest.approx(one[1]))


@pytest.mark.parametrize(
    ("asked", "known", "own"),
    [
        ("Image 1: what modality is it?", None, "ct"),
        ("Image 2: what modality is it?", None, None),
        ("What modality is it?", None, None),
        ("Image 2: what modality is it?", "mri", "mri"),
    ],
)
def test_an_image_is_of_its_own_modality(asked, known, own):
    """One header says nothing of the image beside it; who sends the case may."""
    images = (
        CaseImage(b"", "0", (32, 32), modality="ct"),
        CaseImage(b"", "1", (32, 32)),
    )
    about = in_its_own_words(replace(case(asked, "en"), images=images, modality=known))
    assert about.modality == own


def test_an_error_stands_for_the_whole():
    error = AnswerError(kind="timeout", detail="late")
    failed = Answer(worker="w", seconds=9, error=error)
    one = as_one([(1, said("no", 0.9)), (2, failed)], HEALTHY)
    assert (one.text, one.error, one.seconds) == (None, error, 9)


def test_a_seat_that_takes_several_sees_them_together(panel_file):
    seat = 'languages = ["en"]\nmax_images = 4\neach_image = true'
    with pytest.raises(SettingsError, match="each_image is for a worker that takes one image"):
        load_settings(panel_file(["http://127.0.0.1:1"], seats=(seat,)), environ={})
