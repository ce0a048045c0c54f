import numpy as np
import pytest

from metrics.accuracy import ClassAccuracy, recognised
from metrics.base import SampleSet
from metrics.extractors.identity import IdentityExtractor

from .helpers import Stub

LOGITS = np.array([[3.0, 1, 0], [0, 5, 1], [1, 0, 2], [9, 8, 7]], np.float32)
LABELS = np.array([0, 1, 0, 0])


def test_share_of_agreeing_rows():
    assert recognised(LOGITS, LABELS).mean() == 0.75
    assert recognised(LOGITS, LOGITS.argmax(1)).mean() == 1.0
    assert recognised(LOGITS, (LOGITS.argmax(1) + 1) % 3).mean() == 0.0


def test_metric_uses_the_generated_labels_only():
    fake = SampleSet(4, LABELS, logits={"c": LOGITS})
    real = SampleSet(0, np.empty(0, np.int64))
    found = ClassAccuracy().compute(real=real, fake=fake, extractor="c")
    assert found.value == 0.75
    assert found.se == pytest.approx(np.sqrt(0.75 * 0.25 / 4))
    assert (found.low, found.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    # Four groups of one sample each: all are right only without the wrong one.
    assert sorted(found.replicates) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1.0])
    with pytest.raises(ValueError, match="no logits of extractor 'd'"):
        ClassAccuracy().compute(real=real, fake=fake, extractor="d")


@pytest.mark.parametrize("labels", [LABELS + 3, LABELS - 1, LABELS[:3], LABELS[:0]])
def test_refuses_labels_that_do_not_fit(labels):
    with pytest.raises(ValueError, match="labels"):
        recognised(LOGITS, labels)


def test_supports_only_classifiers_of_the_data():
    def reason(extractor):
        return ClassAccuracy().supports(domain="image", extractor=extractor, exact=None)

    ours = Stub()
    assert reason(ours) is None
    ours.label_logits = False
    assert "not over the data's classes" in reason(ours)
    ours.has_logits = False
    assert "gives no logits" in reason(ours)
    assert "for vector data" in reason(IdentityExtractor(2))
    assert "needs an extractor" in reason(None)
