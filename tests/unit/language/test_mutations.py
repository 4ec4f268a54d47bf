"""Cells with typing errors: each is read, or refused in a few lines that point into the cell."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byzerllm_magics.language import LanguageError, Select, parse_run, parse_script, parse_setup
from byzerllm_magics.language.errors import SHOWN

CELLS = [
    "set ds='''{\"a\": 1;}''';",
    '!byzerllm setup sft;\n!byzerllm setup "num_gpus=4";',
    '-- 数据\nload text.`file:///data/*` where and wholetext="true" as t;',
    "select value as text,file from t where a > 'x;y' -- 长\nas u;",
    'select chat(llm_param(map("instruction",llm_prompt(\'\n你好{0}\n\',array("祝"))，"t",0.1,\n))) as q as v;',
    'with a as (select 1), `b c` as (select "x\'y" /* ; */)\nselect * from a\nunion all\nselect f[1] as w;',
    'run u as TableRepartition.`` where partitionNum="24" and partitionCols="file" as f;',
    "!byzerllm model remove chat; model exists 'chat';",
    "run command as LLM.`` where\nname='sfft'\n-- c\nand a=b and `sfft.int.max_length`=\"128\"\nand d='''${x}''';",
    "action=infer\nudfName=“chat”",
    "single\nnum_gpus=2",
]
WORDS = (
    " run ",
    " as ",
    " where ",
    " and ",
    " set ",
    " LLM.`` ",
    " TableRepartition.`` ",
    " text.`x` ",
    " a=1 ",
    "'''",
)
BEGINNINGS = ("\nselect ", "\nwith a as (", "\nload ", "\n!byzerllm setup ", "\nmodel exists ")
MARKS = "\"'`;,()[]=.\n\t -/*\\!{}$，；（）“”‘’＝。！｀\u3000asx1"


@st.composite
def mistyped(draw):
    text = "\n".join(draw(st.lists(st.sampled_from(CELLS), min_size=1, max_size=3)))
    places = st.integers(0, len(text) - 1)
    for slip in draw(st.lists(st.sampled_from(["delete", "insert", "double", "swap", "repeat"]), max_size=5)):
        first, second = sorted((draw(places) % max(1, len(text)), draw(places) % max(1, len(text))))
        match slip:
            case "delete":
                text = text[:first] + text[first + 1 :]
            case "insert":
                text = text[:first] + draw(st.sampled_from([*MARKS, *WORDS, *BEGINNINGS])) + text[first:]
            case "double":
                text = text[:first] + text[first : first + 1] + text[first:]
            case "swap":
                text = text[:first] + text[first + 1 : first + 2] + text[first : first + 1] + text[first + 2 :]
            case "repeat":
                text = text[:second] + text[first : min(second, first + 10)] + text[second:]
    return text


def points_into(text, error):
    """Whether an error is short and its place is one of the text."""
    place = re.match(r"line (\d+), column (\d+)", error.where)
    line, column = int(place[1]), int(place[2])
    lines = text.split("\n")
    shown = min(len(error.problems), SHOWN)
    return (
        len(error.render()) <= max(5, 2 + 3 * shown)
        and 1 <= line <= len(lines)
        and 1 <= column <= len(lines[line - 1]) + 1
    )


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([parse_script, parse_script, parse_script, parse_run, parse_setup]), mistyped())
def test_a_mistyped_cell_is_read_or_refused_in_a_few_lines_that_point_into_it(parse, text):
    try:
        parsed = parse(text)
    except LanguageError as error:
        refused = error
    else:
        for statement in parsed if isinstance(parsed, tuple) else [parsed]:
            assert 0 <= statement.span.start <= statement.span.end <= len(text)
            if isinstance(statement, Select):
                assert len(statement.sql) == statement.sql_span.end - statement.sql_span.start
        return
    assert points_into(text, refused)


SECRET = "sk-SECRET-4711-XYZ"
KEY = "saas.api_key"
WITH_SECRETS = [
    f'run command as LLM.`` where action="infer" and {KEY} = "{SECRET}" and udfName=\'chat\';',
    f"action=infer\n{KEY} = '{SECRET}'\nudfName=“chat”",
    f"set {KEY} = '''{SECRET}''';",
    f'!byzerllm setup sft;\n!byzerllm setup {KEY} = "{SECRET}";',
]


@st.composite
def mistyped_around_a_secret(draw):
    """A cell with typing errors anywhere but in the secret's key."""
    text = draw(st.sampled_from(WITH_SECRETS))
    marks = [mark for mark in (*MARKS, *WORDS) if mark != "\n"]
    for slip in draw(st.lists(st.sampled_from(["delete", "insert", "double", "swap"]), max_size=2)):
        key = text.index(KEY)
        places = [place for place in range(len(text)) if not key - 2 <= place <= key + len(KEY)]
        place = draw(st.sampled_from(places))
        match slip:
            case "delete":
                text = text[:place] + text[place + 1 :]
            case "insert":
                text = text[:place] + draw(st.sampled_from(marks)) + text[place:]
            case "double":
                text = text[:place] + text[place : place + 1] + text[place:]
            case "swap":
                text = text[:place] + text[place + 1 : place + 2] + text[place : place + 1] + text[place + 2 :]
    return text


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([parse_script, parse_script, parse_run, parse_setup]), mistyped_around_a_secret())
def test_no_error_of_a_mistyped_cell_shows_a_secret(parse, text):
    try:
        parse(text)
    except LanguageError as error:
        refused = error
    else:
        return
    assert SECRET not in "\n".join([str(refused), *refused.render()])
