import numpy as np
import pytest

from experiments.settings_tables import cheapest_as_good

# The full setting is the first.
COSTS = np.array([400.0, 3, 3, 50, 1, 3])
RHO = np.array([0.93, 0.93, 0.94, 0.95, 0.90, 0.92])


def test_the_cheapest_setting_that_ranks_no_worse_is_chosen():
    # 1 ms ranks worse; of those of 3 ms the third ranks best.
    assert cheapest_as_good(COSTS, RHO, 0) == 2


@pytest.mark.parametrize("order", [[2, 0, 1, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
def test_the_order_of_the_settings_does_not_matter(order):
    chosen = cheapest_as_good(COSTS[order], RHO[order], order.index(0))
    assert order[chosen] == 2


def test_the_full_setting_stays_where_none_is_as_good():
    assert cheapest_as_good(COSTS, np.array([0.99, *RHO[1:]]), 0) == 0
