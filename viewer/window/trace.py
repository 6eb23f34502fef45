"""Origins of a text: look up passages in the run's own token shards, trace a text, measure memorization, and test
questions for contamination."""

import contextlib
import functools
import itertools
import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.experiment import Experiment
from data_prep.decontamination.examples import OPTION, ExampleFile, example_files, read_examples
from lm.config.evaluation import HUB
from lm.corpus_index.format import INDEX
from lm.corpus_index.index import CorpusIndex, Matches
from lm.corpus_index.lookups import overlap_of, usual_ngram, ways_to_write
from lm.corpus_index.recitation import NEXT, SHORTEST, prefixes_for, recitations
from lm.corpus_index.spans import TraceRule, trace
from lm.data.records import MANIFEST
from lm.errors import InputError, UsageError
from lm.evaluation.tasks.sources import SOURCES, local_files
from lm.serving.fields import Fields, wrong
from lm.serving.inspections import Inspection
from lm.serving.protocol import encode_text
from lm.storage import is_url
from viewer.training_data import changed_at, read_samples, visible
from viewer.window.window_run import WindowRun

MOST_EXAMPLES, AT_ONCE = 200, 20
"""Maximum examples of a set, and of one answer."""
MOST_TEXTS, MOST_TEXT = 5, 2000
"""Maximum texts of an example, and characters of each."""


class EvaluationSet(NamedTuple):
    """An evaluation set in the config, with its files of examples."""

    name: str
    option: str
    """Option of the config that names it."""
    files: list[ExampleFile]
    fields: tuple[str, ...]
    """Fields of an example that contain its text; (): those of known sets."""


def named_sets(experiment: Experiment) -> tuple[list[EvaluationSet], list[str]]:
    """Return (evaluation sets in the config with files on this machine, messages on the others). Downloads nothing."""
    found = []
    left_out = []
    decontamination = experiment.documents.decontamination
    for one in decontamination.sets:
        if any(is_url(part) for part in (one, one.partition("=")[2])):
            left_out.append(f"{OPTION}: {one} is not on this machine.")
            continue
        try:
            files = example_files([one])
        except UsageError as error:
            left_out.append(str(error))
            continue
        for name in dict.fromkeys(file.set for file in files):
            own = [file for file in files if file.set == name]
            found.append(EvaluationSet(name, OPTION, own, decontamination.fields))
    for option, section in (("train", experiment.train), ("evaluate", experiment.evaluate)):
        for task in (name for name in section.evaluators if name in SOURCES and section.tasks.data):
            if section.tasks.data == HUB:
                left_out.append(f"{option}.tasks.data: {task} is on the hub, and not on this machine.")
                continue
            try:
                paths = local_files(SOURCES[task], Path(section.tasks.data), f"{option}.tasks.data")
            except UsageError as error:
                left_out.append(str(error))
                continue
            found.append(EvaluationSet(task, f"{option}.tasks.data", [ExampleFile(task, path) for path in paths], ()))
    return list({(one.name, *(file.path for file in one.files)): one for one in found}.values()), left_out


def evaluation_sets(run: WindowRun, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/evaluation_sets: without "set", a list of the sets; else examples of that set from "offset"
    on, each as a list of texts: the prompt followed by each answer. Raises ApiError for wrong fields."""
    sets, left_out = named_sets(run.experiment)
    offset = fields.integer("offset", 0, 0, MOST_EXAMPLES - 1)
    if fields.get("set") is None:
        shown = [{"set": number, "name": one.name, "option": one.option} for number, one in enumerate(sets)]
        return {"sets": shown, "left_out": [one[:2000] for one in left_out]}
    if not sets:
        raise wrong(
            "set", fields.get("set"), "left out, because the run's config has no evaluation set on this machine"
        )
    chosen = sets[fields.integer("set", 0, 0, len(sets) - 1)]
    end = min(offset + AT_ONCE, MOST_EXAMPLES)
    examples = []
    for one in itertools.islice(read_examples(chosen.files, chosen.fields), offset, end):
        fields.check_cancelled()
        texts = [text[:MOST_TEXT] for text in one.texts[:MOST_TEXTS]]
        examples.append({"number": one.number, "id": one.id[:200], "texts": texts})
    return {
        "name": chosen.name, "offset": offset, "examples": examples,
        "next": end if len(examples) == end - offset and end < MOST_EXAMPLES else None,
    }  # fmt: skip


MOST_CHARACTERS = 20_000
MOST_TOKENS = 1024
"""Maximum tokens of a passage or text to look up."""
MOST_DOCUMENTS = 20
MOST_SHOWN = 1000
"""Maximum documents of an answer, over all of its passages."""
MOST_CONTEXT = 250
SHOWN = 10
"""Default number of documents."""
CONTEXT = 60
"""Default number of tokens before and after a passage."""
MOST_RECITED = 2048
"""Maximum tokens of a document to read."""
MOST_SAMPLED = 64
RECORDED_SAMPLES, RECORDED_DOCUMENTS = 4, 3
QUESTION_DOCUMENTS = 3
"""Default number of documents for each stretch of a question."""
EXAMPLE_TOKENS, EXAMPLE_CHARACTERS = 200, 240
"""Length of a document prefix, one line of which is an example of a text in its split."""


class Corpus:
    """Index of a run's training text (lm/corpus_index). It is opened on first use, and again after it was rebuilt."""

    def __init__(self, run: WindowRun):
        self.run = run
        self._lock = threading.Lock()
        self._opened = functools.lru_cache(1)(self._open)

    def has_shards(self) -> bool:
        return (self.run.paths.tokens / MANIFEST).is_file()

    def index(self) -> CorpusIndex:
        """Return the open index. Raises InputError, with the command that builds it, if it is missing or unusable."""
        if not self.has_shards():
            raise InputError(self.run.data.missing(self.run.paths.tokens, "launch.write_shards"))
        with self._lock:
            return self._opened(changed_at(self.run.paths.corpus_index / INDEX))

    def _open(self, changed: tuple[int, int] | None) -> CorpusIndex:
        index = CorpusIndex(self.run.paths.root, self.run.experiment.train)
        if index.header.tokenizer_fingerprint != self.run.tokenizer.fingerprint:
            raise InputError(
                f"The shards in {self.run.paths.tokens} are of tokenizer {index.header.tokenizer_fingerprint}, but the "
                f"model's is {self.run.tokenizer.fingerprint}. Use the run that they were written for."
            )
        return index


def inspections(run: WindowRun) -> list[Inspection]:
    corpus = Corpus(run)
    asked = (
        ("corpus", (), about, "whether the training text is indexed, and its size"),
        (
            "search", ("text", "tokens", "split", "documents", "context"), search,
            "how often a text or tokens occur in the training text, and in which documents",
        ),
        (
            "trace", ("text", "start", "least_tokens", "most_count", "share", "documents", "context"), traced,
            "the passages of a text that occur in the training text, by OLMoTrace's rule",
        ),
        (
            "contamination", ("text", "ngram", "split", "documents", "context"), contamination,
            "how many of a text's n-grams occur in the training text, and in which documents",
        ),
        (
            "recite", ("split", "document", "of", "step"), recited,
            "how much of a document the model continues verbatim after its first 8, 16, 32, … tokens",
        ),
    )  # fmt: skip
    bound = lambda answer: lambda fields: answer(corpus, fields)
    of_run = [
        Inspection(name, fields, bound(answer), summary, "" if name == "corpus" else "corpus_index")
        for name, fields, answer, summary in asked
    ]
    sets = Inspection(
        "evaluation_sets", ("set", "offset"), lambda fields: evaluation_sets(run, fields),
        "the evaluation sets that the run's config names, and the first examples of one",
    )  # fmt: skip
    return [*of_run, sets]


def about(corpus: Corpus, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/corpus: a description of the index of the training text; or, if it cannot be used, {"made":
    False, "message": what to do, "shards": whether there are shards to index}."""
    try:
        index = corpus.index()
    except (InputError, UsageError) as error:
        return {"made": False, "message": str(error), "shards": corpus.has_shards()}
    trained, train = index.splits().get("train", {"tokens": 0, "documents": 0}), corpus.run.experiment.train
    tokens = trained["tokens"] + trained["documents"]  # including the BOS of each document
    stages, steps = train.stages(corpus.run.experiment.model.context_length), train.steps
    ends = [stage.first_step for stage in stages.between(0, steps)]
    return {
        "made": True, "splits": index.splits(), "sources": [one.tokens[:1000] for one in index.header.sources],
        "prefixes": prefixes_for(room(corpus)), "next": NEXT, "ngram": usual_ngram(corpus.run.tokenizer),
        "examples": examples(corpus, index),
        # [[step, passes over the training text before this step], ...], to be interpolated linearly
        "epochs": [[step, stages.tokens_before(step) / max(1, tokens)] for step in (*ends, steps)],
    }  # fmt: skip


def examples(corpus: Corpus, index: CorpusIndex) -> dict[str, str]:
    """Return {split: a line of one of its documents}, for splits with a long enough document."""
    found = {}
    for split in index.splits():
        with contextlib.suppress(InputError):  # a damaged table of documents is reported by lookups
            if document := index.sampled(split, 1, 3, EXAMPLE_TOKENS):
                text = corpus.run.tokenizer.decode(document.tokens[:EXAMPLE_TOKENS].tolist())
                line = max((one.strip() for one in text.split("\n")), key=len)[:EXAMPLE_CHARACTERS]
                found[split] = line.rpartition(" ")[0] or line
    return found


def room(corpus: Corpus) -> int:
    """Maximum tokens of a document that the model reads, without BOS."""
    return min(MOST_RECITED, corpus.run.experiment.model.context_length - 1)


def tokens_of(corpus: Corpus, fields: Fields) -> list[int]:
    """Return the tokens of the field "text", or those in the field "tokens". Raises ApiError 400 for invalid ones."""
    if fields.get("tokens") is None:
        return encoded(corpus, fields.string("text", "", MOST_CHARACTERS))
    return fields.token_ids("tokens", corpus.run.tokenizer.vocab_size, MOST_TOKENS)


def encoded(corpus: Corpus, text: str) -> list[int]:
    tokens = encode_text(text, corpus.run.tokenizer, param="text")
    if len(tokens) > MOST_TOKENS:
        raise wrong("text", f"{len(tokens):,} tokens long", f"{MOST_TOKENS:,} at most")
    return tokens


def split_of(fields: Fields, index: CorpusIndex) -> str | None:
    """Return the field "split"; None, for all splits, if it is absent. Raises ApiError 400 for an unknown split."""
    split = fields.get("split")
    if split is None:
        return None
    if not isinstance(split, str) or split not in index.splits():
        raise wrong("split", split, " or ".join(map(repr, index.splits())))
    return split


def search(corpus: Corpus, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/search: how often a text or tokens occur in the training text, and in which documents."""
    index = corpus.index()
    split, most, context = split_of(fields, index), *shown_of(fields)
    given = tokens_of(corpus, fields)
    ways = [given]
    if fields.get("tokens") is None:
        ways = ways_to_write(corpus.run.tokenizer, fields.string("text", ""))
    started = time.perf_counter()
    found = [index.find(tokens, split) for tokens in ways if tokens]
    seconds = time.perf_counter() - started
    counts = dict.fromkeys(index.splits() if split is None else [split], 0)
    for matches in found:
        for part, low, high in matches.ranges:
            counts[part.split] += high - low
    documents = []
    for tokens, matches in zip(filter(None, ways), found, strict=True):
        documents += documents_of(corpus, matches, len(tokens), most - len(documents), context)
    tokens = [{"id": id, "text": visible(corpus.run.tokenizer.token_bytes(id))} for id in given]
    return {"tokens": tokens, "counts": counts, "seconds": round(seconds, 6), "documents": documents}


def shown_of(fields: Fields) -> tuple[int, int]:
    """Return the fields "documents" and "context": how many documents to show, and tokens around a passage."""
    return fields.integer("documents", SHOWN, 0, MOST_DOCUMENTS), fields.integer("context", CONTEXT, 0, MOST_CONTEXT)


def documents_of(corpus: Corpus, matches: Matches, length: int, most: int, context: int) -> list[dict[str, Any]]:
    """Return as JSON at most `most` distinct documents that contain a passage of `length` tokens, each with `context`
    tokens before and after it. `matches` are the places of the passage."""
    index, found = corpus.index(), {}
    most = max(0, most)
    text = lambda spot, low, high: corpus.run.tokenizer.decode(spot.part.tokens[low:high].tolist())
    # Spots are spread over the matches. If several are in one document, look at more.
    for spot in itertools.chain(matches.spots(most), matches.spots(4 * most)):
        document = index.document_at(spot)
        if (document.source, document.number) not in found:
            at = spot.position
            begin, end = max(document.begin, at - context), min(document.end, at + length + context)
            found[document.source, document.number] = {
                "number": document.number, "id": document.id[:1000], "url": document.url[:1000],
                "split": document.split, "source": document.source[:1000], "offset": at - document.begin,
                "tokens": document.end - document.begin, "before": text(spot, begin, at),
                "match": text(spot, at, at + length), "after": text(spot, at + length, end),
                "from_start": begin == document.begin, "to_end": end == document.end,
            }  # fmt: skip
        if len(found) == most:
            break
    return list(found.values())


def traced(corpus: Corpus, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/trace: passages of a text that occur in the training text. The first "start" characters, the
    prompt, are not looked up. Raises ApiError for wrong fields."""
    text = fields.string("text", "", MOST_CHARACTERS)
    start = fields.integer("start", 0, 0, MOST_CHARACTERS)
    if start > len(text):
        raise wrong("start", start, f"at most the {len(text):,} characters of the text")
    index, tokenizer = corpus.index(), corpus.run.tokenizer
    most, context = shown_of(fields)
    rule = TraceRule(
        fields.integer("least_tokens", TraceRule.least_tokens, 1, MOST_TOKENS),
        fields.integer("most_count", TraceRule.most_count, 1, 10**9),
        fields.number("share", TraceRule.share, 0, 1),
    )
    prompt = encoded(corpus, text[:start])
    tokens = [*prompt, *encoded(corpus, text[start:])]
    spans = trace(index, tokenizer, tokens, rule, len(prompt), check_cancelled=fields.check_cancelled)
    pieces = [tokenizer.token_bytes(id) for id in tokens]
    shown, left = [], MOST_SHOWN
    for span in spans:
        fields.check_cancelled()
        documents = documents_of(corpus, span.matches, span.end - span.start, min(most, left), context)
        left -= len(documents)
        shown.append({
            "start": span.start, "end": span.end, "count": span.count,
            "bits": round(-span.log_probability / math.log(2), 3),
            "text": tokenizer.decode(tokens[span.start : span.end]), "documents": documents,
        })  # fmt: skip
    return {
        "tokens": len(tokens), "prompt_tokens": len(prompt),
        "parts": parts_of(pieces, [(span.start, span.end) for span in spans]),
        "spans": shown, "most_count": rule.most_count,
    }  # fmt: skip


def parts_of(pieces: Sequence[bytes], spans: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Split a text, given as the bytes of its tokens, at the ends of spans, which may overlap: [{"text", "spans":
    indices of the spans that cover it}]. A span is (first token, end)."""
    edges = sorted({0, len(pieces), *(edge for span in spans for edge in span)})
    found = []
    for low, high in itertools.pairwise(edges):
        covering = [number for number, (start, end) in enumerate(spans) if start <= low and high <= end]
        found.append({"text": b"".join(pieces[low:high]).decode("utf-8", "replace"), "spans": covering})
    return found


def contamination(corpus: Corpus, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/contamination: how many n-grams of a text occur in a split, and in which documents."""
    index, tokenizer = corpus.index(), corpus.run.tokenizer
    ngram = fields.integer("ngram", usual_ngram(tokenizer), 1, MOST_TOKENS)
    most = fields.integer("documents", QUESTION_DOCUMENTS, 0, MOST_DOCUMENTS)
    context = shown_of(fields)[1]
    text = fields.string("text", "", MOST_CHARACTERS)
    encoded(corpus, text)
    tokens, found = overlap_of(
        index, tokenizer, text, ngram, split_of(fields, index) or "train", fields.check_cancelled
    )
    pieces = [tokenizer.token_bytes(id) for id in tokens]
    if pieces and not text.startswith(" "):
        pieces[0] = pieces[0].removeprefix(b" ")  # added by tokenizing it after a space
    spans, left = [], MOST_SHOWN
    for start, end, matches in found.spans:
        fields.check_cancelled()
        documents = documents_of(corpus, matches, min(ngram, len(tokens)), min(most, left), context)
        left -= len(documents)
        spans.append({"start": start, "end": end, "count": matches.count, "documents": documents})
    return {
        "tokens": len(tokens), "ngram": ngram, "ngrams": found.ngrams, "found": found.found, "spans": spans,
        "parts": parts_of(pieces, [(start, end) for start, end, _ in found.spans]),
    }  # fmt: skip


def recited(corpus: Corpus, fields: Fields) -> dict[str, Any]:
    """Answer /v1/inspect/recite: how far the model continues a document verbatim. The field "document" is an index
    among "of" documents, spread over a split. Returns {"document": None} if no document is long enough."""
    index = corpus.index()
    split = split_of(fields, index) or "train"
    of = fields.integer("of", MOST_SAMPLED // 4, 1, MOST_SAMPLED)
    longest = max(prefixes_for(room(corpus)), default=SHORTEST)
    document = index.sampled(split, fields.integer("document", 0, 0, of - 1), of, longest + NEXT)
    inspector = corpus.run.at(fields)
    if document is None:
        return {"split": split, "document": None, "prefixes": [], "tokens": []}
    end = min(document.end, document.begin + room(corpus))
    scored = inspector.score(document.part.tokens[document.begin : end].tolist(), 1, tell=fields.before_compiling)
    likeliest_T = scored.ranks_N == 1
    text = lambda id: visible(corpus.run.tokenizer.token_bytes(int(id)))
    return {
        "split": split,
        "document": {
            "number": document.number, "id": document.id[:1000], "url": document.url[:1000],
            "source": document.source[:1000],
        },
        "next": NEXT,
        "prefixes": [one._asdict() for one in recitations(likeliest_T, prefixes_for(len(likeliest_T)))],
        "tokens": [
            {"text": text(id), "right": bool(right)} | ({} if right else {"said": text(said[0])})
            for id, right, said in zip(scored.ids_N, likeliest_T, scored.top_ids_NK, strict=True)
        ],
    }  # fmt: skip


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "corpus", {}
    try:
        index = Corpus(run).index()
    except (InputError, UsageError):
        return
    during, final = read_samples(run.paths.samples)
    for sample in (final or during[-RECORDED_SAMPLES:])[:RECORDED_SAMPLES]:
        text = sample.prompt + sample.continuation
        if len(text) <= MOST_CHARACTERS:
            yield "trace", {"text": text, "start": len(sample.prompt)}
    if prompt := next(iter(run.experiment.sample.prompts), ""):
        yield "search", {"text": prompt}
    for text in examples(Corpus(run), index).values():
        yield "contamination", {"text": text, "ngram": usual_ngram(run.tokenizer)}
    for split in index.splits():
        for number in range(RECORDED_DOCUMENTS):
            yield "recite", {"split": split, "document": number, "of": RECORDED_DOCUMENTS}
