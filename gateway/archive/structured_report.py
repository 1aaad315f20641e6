"""A verdict → a DICOM Structured Report: TID 1500 (PS3.16), as Comprehensive SR.

Numbers, and which algorithm gave them, are a measurement group (TID 1501, TID 4019); what was said
in words stands under Qualitative Evaluations. Patient and study are those of the images.
"""

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from gateway.archive.words import RESEARCH, figures, first_id, lines, uid_of
from gateway.contract import Verdict

OURS = "99CONSILIUM"  # the coding scheme of what no standard one has a word for
SERIES_NUMBER = 9_000
NAMES = {"en": "English", "es": "Spanish", "zh": "Chinese"}


def report(verdict: Verdict, question: str, images: Sequence[Dataset]) -> Dataset:
    """`images` are the headers of what the panel was shown, as the archive has them."""
    uids = partial(uid_of, verdict=verdict, question=question, images=images)
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=uids("device"), name="Consilium", manufacturer_name="Consilium"
        ),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=sr.CodedConcept("363679005", "SCT", "Imaging procedure"),
        imaging_measurements=[_figures(verdict, images, uids("figures"))],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            sr.CodedConcept(verdict.language, "RFC5646", NAMES[verdict.language])
        ),
    )
    content[0].ContentSequence.append(_words(verdict, question))
    return sr.ComprehensiveSR(
        evidence=images,
        content=content[0],
        series_instance_uid=uids("report's series"),
        series_number=SERIES_NUMBER,
        series_description=RESEARCH,
        sop_instance_uid=uids("report"),
        instance_number=1,
        manufacturer="Consilium",
        is_complete=True,
        is_final=False,
        is_verified=False,
    )


def _figures(
    verdict: Verdict, images: Sequence[Dataset], uid: UID
) -> sr.MeasurementsAndQualitativeEvaluations:
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=uid, identifier=first_id(verdict)),
        algorithm_id=sr.AlgorithmIdentification(
            name="Consilium", version=version("consilium"), parameters=[f"panel {verdict.panel}"]
        ),
        source_images=[
            sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
            for image in images
        ],
        measurements=[
            sr.Measurement(name=_ours(name), value=value, unit=codes.UCUM.NoUnits)
            for name, value in figures(verdict).items()
        ],
    )


def _words(verdict: Verdict, question: str) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(
        name=sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations"),
        relationship_type=sr.RelationshipTypeValues.CONTAINS,
    )
    container.ContentSequence = sr.ContentSequence(
        sr.TextContentItem(
            name=_ours(name), value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
        )
        for name, text in lines(verdict, question)
    )
    return container


def _ours(name: str) -> sr.CodedConcept:
    return sr.CodedConcept(name.lower(), OURS, name)
