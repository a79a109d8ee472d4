import numpy as np

from experiments.processors import agreement_rows


def test_agreement_counts_what_differs():
    scores = np.array([5.0, 4.0, 3.0, np.nan, *np.linspace(-1, -2, 20)])
    # The first two cells change places; the others are the same.
    others = scores.copy()
    others[:2] = 4.0, 4.4
    (row,) = agreement_rows({"one": scores, "two": others})
    assert row[:2] == ["one, two", "2.0e-01"]
    assert row[2] == "0.0e+00"
    assert 0.99 < float(row[3]) < 1
    assert row[4:] == ["2", "0 of 1", "5 of 5", "10 of 10"]


def test_equal_scores_agree_to_the_last_digit():
    scores = np.linspace(1, 2, 20)
    (row,) = agreement_rows({"one": scores, "two": scores})
    assert row[1:] == ["0.0e+00", "0.0e+00", "1.000000", "0", "1 of 1", "5 of 5", "10 of 10"]
