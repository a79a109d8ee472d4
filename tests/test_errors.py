import pickle

from epe_nas_jax import InputError


def test_a_message_is_one_line_whatever_it_quotes():
    assert str(InputError("a\nb\r\nc\x1cd\u2028e")) == "a b c d e"
    assert str(InputError("two  spaces\n")) == "two  spaces"
    error = pickle.loads(pickle.dumps(InputError("a\nb")))
    assert isinstance(error, ValueError)
    assert str(error) == "a b"


def test_of_a_message_with_a_whole_file_in_it_both_ends_stay():
    line = str(InputError("begin " + "x" * 10**6 + " end"))
    assert len(line) < 2010
    assert line.startswith("begin xxx")
    assert line.endswith("xxx end")
