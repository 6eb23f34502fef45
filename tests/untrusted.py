"""All regular expressions and scans of external text; data_prep's are in tests/data_prep/untrusted.py.

tests/test_linear_time.py tests these lists, and finds regular expressions that are missing in them.
"""

import contextlib
from collections.abc import Callable

from lm.chat.template import ChatTemplate
from lm.chat.templates import with_template
from lm.chat.tools import rank_of
from lm.checkpoints.manifest import owner
from lm.corpus_index.spans import word_edges
from lm.errors import UsageError
from lm.evaluation.tasks.benchmarks import cleaned
from lm.formats.standalone.tokenizer import python_pattern
from lm.storage.objects import first_line, may_pass
from lm.tokenizer import BytePairTokenizer
from lm.tokenizer.hugging_face.reading import means_the_same
from lm.tokenizer.pattern_cost import runs_of
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.data_prep import untrusted as of_data_prep
from tests.data_prep.untrusted import Anywhere, AtPlace, Bounded, Trusted, Within
from viewer.training_data import short
from viewer.window.corpus.parquet_folder import around
from viewer.window.followed import pieces_of, shown_pieces

SPECIAL = {"<|endoftext|>": 256, "<|start|>": 257}
TOKENIZER = BytePairTokenizer(
    SPLIT_PATTERNS["gpt2"], tuple(bytes((one,)) for one in range(256)), *SPECIAL, special_tokens=SPECIAL
)


TEMPLATE = ChatTemplate(with_template(TOKENIZER, ""))


def standalone(pattern: str) -> None:
    with contextlib.suppress(UsageError, RecursionError):
        python_pattern(pattern)


def split_pattern(pattern: str) -> None:
    with contextlib.suppress(ValueError):
        runs_of(pattern)


def marked(text: str) -> None:
    """A page of many dropped spans, followed by as much kept text."""
    menu = "".join(f"<li>{text[at : at + 30]} and a little more {at}</li>" for at in range(0, len(text), 30))
    shown_pieces(pieces_of(menu + text, "What was kept of the page, " * (len(text) // 9)))


FUNCTIONS: dict[str, Callable[[str], object]] = {
    f"data_prep: {name}": function for name, function in of_data_prep.FUNCTIONS.items()
} | {
    "chat template": lambda text: TEMPLATE.encode([{"role": "user", "content": text}]),
    "rank_of": lambda text: rank_of(text, "needle", "Needle"),
    "html_marks": marked,
    "html_marks of itself": lambda text: pieces_of(text, text),
    "cleaned": cleaned,
    "runs_of": split_pattern,
    "around": lambda text: around(text, "needle"),
    "short": short,
    "encode": lambda text: TOKENIZER.encode(text, SPECIAL),
    "word_edges": lambda text: word_edges(
        [text[at : at + 3].encode(errors="replace") for at in range(0, len(text), 3)]
    ),
    "means_the_same": means_the_same,
    "python_pattern": standalone,
    "owner": owner,
    "may_pass": lambda text: may_pass(OSError(text), "https"),
    "first_line": lambda text: first_line(OSError(text)),
}
"""Functions of a text of any length."""

COMPILER = Trusted("what XLA prints of our own program")
OPTION = Trusted("an option")
HLO = """BRANCHES CALLED COMPUTATION INSTRUCTION KERNEL SHAPE operands
summed_elements called collective_of byte_count first_count group_size identity integer kernels trip_count"""
PATTERNS: dict[str, Anywhere | Within | Bounded | Trusted] = {
    f"data_prep.{name}": (Within(f"data_prep: {how.function}") if isinstance(how, Within) else how)
    for name, how in of_data_prep.PATTERNS.items()
} | {
    "configs.experiment.command_line.print_boxes": Trusted("our own docstrings and help"),
    "configs.experiment.command_line.print_help": Trusted("our own docstrings and help"),
    "configs.packages.page_formats.page_of_text": Trusted("files of packages that are pinned by their hashes"),
    "configs.packages.page_formats.wikitext_to_html": Trusted("files of packages that are pinned by their hashes"),
    "configs.recipes.page_questions.PERSON": Anywhere("by the Abe Lee"),
    "configs.recipes.page_questions.PLACE": Anywhere("lies", "found in"),
    "configs.recipes.page_questions.STOP": Anywhere("it"),
    "configs.recipes.page_questions.made_up": Bounded(characters=100, why="a word of a sentence"),
    "configs.recipes.page_questions.TITLE": AtPlace("The owl (a bird), or eule, is a ", "Owl is a "),
    "configs.recipes.page_questions.YEAR": Anywhere("1999"),
    "launch.cloud.job.parse_job": OPTION,
    "lm.chat.reply.CONTROL": AtPlace("<|call|>"),
    "lm.chat.template.ChatTemplate": Within("chat template"),
    "lm.chat.tools.DEFINES": AtPlace(" (1 - 2), or x, is", " was"),
    "lm.chat.tools.SENTENCE_END": Anywhere('a.") (B'),
    "lm.chat.tools.rank_of": Within("rank_of"),
    "lm.formats.coverage.OWN_PARAMETERS": Trusted("names of our own parameters"),
    "lm.metrics.writers.run_id_in": Bounded(65, "the pattern has so many characters at most"),
    "lm.serving.http.NAME": OPTION,
    "lm.serving.http.ORIGIN": OPTION,
    "lm.storage.files.HUB_REPOSITORY": Bounded(255, "the name of a folder"),
    "lm.storage.objects.NO_NAME": Anywhere("a//b"),
    "lm.storage.places.DRIVE": AtPlace("C:"),
    "lm.storage.places.WILDCARD": Trusted("an option"),
    **{
        f"lm.tokenizer.pattern_cost.{name}": Within("runs_of")
        for name in ("_ANCHOR", "_COUNTED", "_ESCAPE", "_FLAGS", "_GROUP", "_class_end", "runs_of")
    },
    "viewer.page.doc_html": Trusted("our own docs"),
    "launch.release.documents.how_to_load": Trusted("the name of the folder that the user gave"),
    "launch.release.model_card.language_lines": Trusted("languages that our own config names"),
    **{
        f"launch.stages.parent.{name}": Trusted("what JAX logs in a process of our own")
        for name in ("JAX_LOG", "LOST", "STATUS", "reason_in")
    },
    "launch.stages.processes.by_scheduler": Trusted("a variable that Slurm sets"),
    "lm.checkpoints.errors.readable_errors": Trusted("what Orbax and the system say of a full disk"),
    "lm.checkpoints.manifest.owner": Within("owner"),
    "lm.config.training.XLA_OPTION": AtPlace("xla_gpu_autotune_level=0"),
    "lm.corpus_index.spans.WORD": Bounded(1, "a character"),
    "lm.evaluation.tasks.benchmarks.BRACKETS": Anywhere("[a] b"),
    "lm.formats.hugging_face.names.NO_WEIGHT": AtPlace(
        "transformer.h.0.attn.masked_bias", "model.layers.10.self_attn.rotary_emb.inv_freq"
    ),
    "lm.formats.standalone.tokenizer.CLASS": Anywhere("\\p{Lu}", "\\s"),
    "lm.formats.standalone.tokenizer.python_pattern": Within("python_pattern"),
    "lm.model.param_names.IN_BLOCK": Trusted("names of our own parameters"),
    "lm.model.taps.LAYER": Trusted("names of our own activations"),
    "lm.training.step.ANY_NUMBER": Trusted("names of our own activations"),
    "lm.planner.compile.out_of_memory": COMPILER,
    **{f"lm.planner.hlo.{name}": COMPILER for name in HLO.split()},
    "lm.planner.topology.topology_of": OPTION,
    "lm.storage.objects.NO_KEYS": Anywhere("Credential"),
    "lm.storage.objects.first_line": Within("first_line"),
    "lm.reinforcement.tasks.SUM": AtPlace(" 3 * 41 "),
    "lm.storage.objects.may_pass": Within("may_pass"),
    "lm.tokenizer.base.Tokenizer": Within("encode"),
    "lm.tokenizer.encoding._RUN": Anywhere("a  b"),
    "lm.tokenizer.fast.FastEncoder": Trusted("one set of characters, whatever the text"),
    "lm.tokenizer.hugging_face.library.BYTE": AtPlace("<0x0A>"),
    "lm.tokenizer.hugging_face.reading.means_the_same": Within("means_the_same"),
    "lm.tokenizer.published._RANKS": AtPlace("aGVsbG8= 0\n"),
    "lm.tokenizer.sentencepiece._RESERVED": Anywhere("a\u2581b"),
    "lm.tokenizer.sentencepiece._TOO_LARGE": Trusted("messages of SentencePiece's trainer"),
    "lm.tokenizer.sentencepiece._TOO_SMALL": Trusted("messages of SentencePiece's trainer"),
    "lm.training.aot_compile.REFUSED": COMPILER,
    "viewer.window.followed.ENDS": Within("html_marks"),
    "viewer.window.followed.PIECE": Within("html_marks"),
    "viewer.window.followed.RAW": Within("html_marks"),
    "viewer.training_data.short": Within("short"),
    "viewer.window.corpus.parquet_folder.around": Within("around"),
}
"""Every regular expression of the tree: `module.NAME`, or `module.function` for those made inside one. The encoders of
other kinds split at special tokens by the same expression as BytePairTokenizer, which "encode" tests."""
