import torch

from bench.inversion.plan import balanced, edit_targets


def test_balanced_takes_the_first_images_of_each_class_equally():
    labels = torch.tensor([0, 0, 0, 1, 2, 1, 2, 0, 1])
    assert balanced(labels, 6).tolist() == [0, 1, 3, 4, 5, 6]
    assert balanced(labels, 3).tolist() == [0, 3, 4]
    # Beyond a multiple of the classes the lower ones have one more.
    assert balanced(labels, 4).tolist() == [0, 1, 3, 4]
    assert balanced(labels, 100).tolist() == list(range(9))


def test_balanced_fills_up_with_other_classes_when_one_runs_out():
    labels = torch.tensor([0, 1, 1, 1, 1])
    assert balanced(labels, 4).tolist() == [0, 1, 2, 3]


def test_edit_targets_are_all_other_classes_or_the_next_of_many():
    labels = torch.tensor([0, 3, 9])
    few = edit_targets(labels, 10)
    assert [sorted(int(t[i]) for t in few) for i in range(3)] == [
        [k for k in range(10) if k != label] for label in labels.tolist()
    ]
    assert [t.tolist() for t in edit_targets(torch.tensor([0, 10]), 11)] == [[1, 0]]
    assert edit_targets(torch.tensor([0, 0]), 1) == []
