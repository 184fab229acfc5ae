"""The data selection study (arXiv 2305.00995): which sets methods choose, and whether their kernels tell how well they generalise."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.pairing import CONFIDENCE, Correlation, Ratio, correlation, holm, over_clusters, pairs, ratio_of
from orchestrator.selection_runs import KIND, SEEDS, agreement, by_set, runs
from orchestrator.study import Section, Study, Table
from orchestrator.study_tables import need

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

METHODS_SWEEP, SETS_SWEEP, WIDTH_SWEEP = "data_selection", "data_selection_sets", "data_selection_width"
METHODS = ("rnd", "random", "maximum_entropy", "pivoted_cholesky")
NAMES = {
    "rnd": "random network distillation",
    "random": "random choice",
    "maximum_entropy": "the random set of most entropy",
    "pivoted_cholesky": "pivoted Cholesky",
}
CLAIMED, REFERENCE, VARIANCE = "rnd", "random", "pivoted_cholesky"
PAIRS = ((CLAIMED, VARIANCE), (REFERENCE, VARIANCE))
LOSS = "test_loss"
WORDS = {
    "test_loss": "test loss",
    "least_test_loss": "least test loss along training",
    "entropy_traced": "entropy",
    "trace_traced": "trace",
    "label_entropy": "entropy of the labels",
}
UNITS = {"test_loss": "test loss (nats)", "entropy_traced": "kernel entropy (nats)", "trace_traced": "kernel trace per row"}
OBSERVABLES = ("entropy_traced", "trace_traced", "label_entropy")
CLAIMED_OBSERVABLES = OBSERVABLES[:2]
ONE_METHOD = "one method"
STANDING = {"negative": "is seen", "positive": "is contradicted", "undecided": "is neither seen nor contradicted"}


# -- tables -------------------------------------------------------------------------------------------------------------------


def comparisons(frame: "pl.DataFrame", y: str) -> "pl.DataFrame":
    """Every method over the random choice in pairs of one seed: a row a kind of run, method and set size, and one over all (size null).

    Columns are those of KIND, method, set_size, those of `Ratio`, verdict, `p_holm`, adjusted for the set sizes of a method, and
    `decided`, the verdict where that is below 0.05 too, else undecided. Over all sizes a seed counts once.
    """
    import polars as pl

    rows: list[dict[str, Any]] = []
    for kind, part in _kinds(frame):
        for method in [name for name in METHODS if name != REFERENCE and name in set(part["method"])]:
            paired = pairs(part, "method", method, REFERENCE, ["set_size", *SEEDS], y)
            own = [
                {**kind, "method": method, "set_size": size[0], **_ratio_row(ratio_of(some[y].to_numpy(), some["reference"].to_numpy()))}
                for size, some in paired.partition_by("set_size", as_dict=True, maintain_order=True).items()
            ]
            for row, p in zip(own, holm([row["p_value"] for row in own]), strict=True):
                row["p_holm"] = p
            whole = _ratio_row(over_clusters(paired, SEEDS, y))
            rows += [*own, {**kind, "method": method, "set_size": None, **whole, "p_holm": whole["p_value"]}]
    for row in rows:
        row["decided"] = row["verdict"] if row["p_holm"] < 1 - CONFIDENCE else "undecided"
    strings = dict.fromkeys((*KIND, "method", "verdict", "decided"), pl.String)
    numbers = dict.fromkeys(("value", "low", "high", "p_value", "p_holm"), pl.Float64)
    return pl.DataFrame(rows, schema={**strings, **numbers, **dict.fromkeys(("set_size", "num_pairs", "num_below"), pl.Int64)})


def _ratio_row(ratio: Ratio) -> dict[str, Any]:
    return {name: getattr(ratio, name) for name in ("value", "low", "high", "p_value", "num_pairs", "num_below", "verdict")}


def correlations(frame: "pl.DataFrame", y: str = LOSS) -> "pl.DataFrame":
    """Rank correlation of each observable at initialisation with `y`, within one set size (D13), over sets; intervals resample seeds.

    `scope`: "all methods" together, which are few, or "within methods", what is left of each set beside the means of its method and of
    its seed, which has drawn a network and a pool for all methods. set_size null: over all sizes, of the ranks within each.
    Columns are those of KIND, set_size, observable, scope, value, low, high, num_points, num_clusters, verdict.
    """
    import polars as pl

    rows: list[dict[str, Any]] = []
    for kind, part in _kinds(by_set(frame)):
        for scope, points in _scopes(part, [*OBSERVABLES, y]).items():
            for size in (None, *part["set_size"].unique().sort().to_list()):
                some = _ranked(points, [*OBSERVABLES, y]) if size is None else points.filter(pl.col("set_size") == size)
                clusters = some.select(pl.struct("seed", "seed_subset", "seed_noise").rank("dense")).to_series().to_numpy()
                for name in OBSERVABLES:
                    found = correlation(some[name].to_numpy(), some[y].to_numpy(), clusters)
                    rows.append({**kind, "set_size": size, "observable": name, "scope": scope, **_correlation_row(found)})
    strings = dict.fromkeys((*KIND, "observable", "scope", "verdict"), pl.String)
    numbers = dict.fromkeys(("value", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={**strings, **numbers, **dict.fromkeys(("set_size", "num_points", "num_clusters"), pl.Int64)})


def _correlation_row(found: Correlation) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ("value", "low", "high", "num_points", "num_clusters", "verdict")}


def _scopes(part: "pl.DataFrame", columns: Sequence[str]) -> dict[str, "pl.DataFrame"]:
    import polars as pl

    if part["method"].n_unique() < 2:
        return {ONE_METHOD: part}
    # a hard draw makes every set's loss larger by a factor
    values = {name: pl.col(name) if name in ("entropy_traced", "label_entropy") else pl.col(name).log() for name in columns}
    seeds = [name for name in SEEDS if name != "seed_init"]
    own = [
        (one - one.mean().over("method", "set_size") - one.mean().over(*seeds, "set_size") + one.mean().over("set_size")).alias(name)
        for name, one in values.items()
    ]
    return {"all methods": part, "within methods": part.with_columns(own)}


def _ranked(points: "pl.DataFrame", columns: Sequence[str]) -> "pl.DataFrame":
    """Ranks within each set size, as shares of its sets."""
    import polars as pl

    return points.with_columns((pl.col(name).rank() / pl.len()).over("set_size") for name in columns)


def _kinds(frame: "pl.DataFrame") -> "Iterator[tuple[dict[str, Any], pl.DataFrame]]":
    """The runs of each data set and model."""
    for values, part in sorted(frame.partition_by(list(KIND), as_dict=True).items()):
        yield dict(zip(KIND, values, strict=True)), part


# -- sections -----------------------------------------------------------------------------------------------------------------


def methods(results: Mapping[str, "Results"]) -> Section:
    """Test loss, entropy and trace of the sets that methods choose, by their size, and in pairs with random ones."""
    frame = runs(need(results, METHODS_SWEEP))
    kinds = list(_kinds(frame))
    lines = [[*_loss_lines(part, kind), *_observable_lines(part, kind), *_relation_lines(part, kind)] for kind, part in kinds]
    lost = {_said(kind): int(part[LOSS].is_nan().sum()) for kind, part in kinds}
    return Section(
        title="Sets that methods choose",
        findings=[line for some in lines for line in some],
        drawings=_of_methods(frame),
        tables=[
            Table(name="over-random", heading="Test loss over that of random sets (set size –: all)", rows=_rows(comparisons(frame, LOSS))),
            Table(name="correlations", heading="Rank correlation with test loss (set size –: all)", rows=_rows(correlations(frame))),
        ],
        notes=[f"{said}: {count} diverged trainings are in no figure" for said, count in lost.items() if count],
    )


def random_sets(results: Mapping[str, "Results"]) -> Section:
    """Whether entropy and trace at initialisation tell which of many random sets of one size generalises best."""
    frame = runs(need(results, SETS_SWEEP))
    return Section(
        title="Random sets of one size",
        findings=[line for kind, part in _kinds(frame) for line in _relation_lines(part, kind)],
        drawings=_of_sets(frame),
        tables=[
            Table(name="set-correlations", heading="Rank correlation with test loss (set size –: all)", rows=_rows(correlations(frame)))
        ],
        notes=["each interval of random sets stands by itself: one in twenty leaves out a true 0"],
    )


def wide_networks(results: Mapping[str, "Results"]) -> Section:
    """Whether random network distillation and pivoted Cholesky agree as networks grow wide."""
    table = agreement(need(results, WIDTH_SWEEP), PAIRS)
    return Section(title="Distillation and predictive variance", findings=_agreement_lines(table), drawings=_of_widths(table))


def _rows(table: "pl.DataFrame") -> list[dict[str, Any]]:
    """Numbers with three digits, which sort by what they are; without a value, a dash."""
    return [{name.replace("_", " "): _cell(value) for name, value in row.items()} for row in table.rows(named=True)]


def _cell(value: Any) -> Any:
    return ("–", math.nan) if value is None else (f"{value:.3g}", value) if isinstance(value, float) else value


# -- figures ------------------------------------------------------------------------------------------------------------------


def _of_methods(frame: "pl.DataFrame") -> list[Drawing]:
    related, found = correlations(frame), []
    for kind, part in _kinds(frame):
        found += [_against_size(part, kind, y) for y in UNITS]
        found += [_over_random(part, kind), _related(related, kind, "correlation", "chosen sets")]
        found += [_beside_loss(part, related, kind, name) for name in CLAIMED_OBSERVABLES]
    return found


def _against_size(part: "pl.DataFrame", kind: Mapping[str, Any], y: str) -> Drawing:
    from orchestrator.figures.means import means

    title = f"{_capital(WORDS[y])} against set size, {_said(kind)}"
    ax = means(part, x="set_size", y=y, by="method", values=METHODS, title=title, y_label=UNITS[y])
    seeds = part.select(SEEDS).n_unique()
    when = "after training" if y == LOSS else "at initialisation, on the chosen set"
    return Drawing(
        name=_file(y, kind), ax=ax, caption=f"{_said(kind)}. {_capital(WORDS[y])} {when}: mean over {seeds} seeds and its standard error."
    )


def _over_random(part: "pl.DataFrame", kind: Mapping[str, Any]) -> Drawing:
    import polars as pl

    from orchestrator.figures.intervals import intervals

    table = comparisons(part, LOSS).drop_nulls("set_size")
    others = [name for name in METHODS if name != REFERENCE]
    each = [pairs(part, "method", name, REFERENCE, ["set_size", *SEEDS], LOSS).with_columns(method=pl.lit(name)) for name in others]
    dots = pl.concat(each).with_columns(value=pl.col(LOSS) / pl.col("reference"))
    own = table.filter(pl.col("method") == CLAIMED)
    title = f"{_capital(NAMES[CLAIMED])} over random choice, {_said(kind)}: {_counted(own['decided'].to_list())}"
    ax = intervals(
        table, x="set_size", by="method", values=METHODS, neutral=1.0, dots=dots, title=title, y_label="test loss over random's",
        logarithmic=True,
    )  # fmt: skip
    caption = f"{_said(kind)}. Dots: pairs of one seed (same pool and initialisation). "
    caption += "Marks: geometric means with 95 % intervals; the title counts after Holm's correction."
    return Drawing(name=_file("over-random", kind), ax=ax, caption=caption)


def _counted(verdicts: Sequence[str]) -> str:
    """How many set sizes are lower, higher and undecided."""
    return ", ".join(f"{word} at {verdicts.count(word)} of {len(verdicts)} sizes" for word in ("lower", "higher") if word in verdicts) or (
        f"undecided at all {len(verdicts)} sizes"
    )


def _related(related: "pl.DataFrame", kind: Mapping[str, Any], file: str, of: str) -> Drawing:
    import polars as pl

    from orchestrator.figures.intervals import intervals

    own = (
        related.filter(pl.col("scope") != "all methods")
        .drop_nulls("set_size")
        .filter([pl.col(name) == value for name, value in kind.items()])
    )
    shown = own.with_columns(kind=pl.col("observable").replace_strict(WORDS)).drop_nulls().filter(pl.col("value").is_finite())
    title = f"What goes along with test loss of {of}, {_said(kind)}"
    names = [WORDS[name] for name in OBSERVABLES]
    ax = intervals(shown, x="set_size", by="kind", values=names, title=title, y_label="rank correlation with test loss")
    caption = (
        f"{_said(kind)}. Of kernels at initialisation and of labels: Spearman's correlation with test loss over sets of one size, as "
        "what is left beside the means of their methods and seeds, or of one method; bars resample seeds (95 %)."
    )
    return Drawing(name=_file(file, kind), ax=ax, caption=caption)


def _beside_loss(part: "pl.DataFrame", related: "pl.DataFrame", kind: Mapping[str, Any], name: str) -> Drawing:
    """At the smallest set size."""
    import polars as pl

    size = min(part["set_size"].to_list())
    sets = by_set(part).filter(pl.col("set_size") == size)
    row = related.filter([pl.col(one) == value for one, value in {**kind, "set_size": size, "observable": name}.items()]).row(0, named=True)
    title = f"{_capital(WORDS[name])} and test loss, sets of {size}, {_said(kind)}: {_correlated(row)}"
    return _scattered(sets, name, title, _file(f"{name}-and-loss", kind), kind)


def _of_sets(frame: "pl.DataFrame") -> list[Drawing]:
    import polars as pl

    found = []
    related = correlations(frame)
    for kind, part in _kinds(frame):
        found.append(_related(related, kind, "sets-correlation", "random sets"))
        size = min(part["set_size"].to_list())
        sets = by_set(part).filter(pl.col("set_size") == size)
        for name in OBSERVABLES:
            chosen = [pl.col(one) == value for one, value in {**kind, "set_size": size, "observable": name}.items()]
            row = related.filter(chosen).row(0, named=True)
            # such as the labels of balanced sets, which are all alike
            if math.isnan(row["value"]):
                continue
            told = _correlated(row)
            title = f"{_capital(WORDS[name])} and test loss of {len(sets)} random sets of {size}, {_said(kind)}: {told}"
            found.append(_scattered(sets, name, title, _file(f"sets-{name}", kind), kind))
    return found


def _scattered(sets: "pl.DataFrame", name: str, title: str, file: str, kind: Mapping[str, Any]) -> Drawing:
    from orchestrator.figures.scatter import scatter

    labels = {**UNITS, "label_entropy": "entropy of the set's labels (nats)"}
    ax = scatter(sets, x=name, y=LOSS, by="method", values=METHODS, title=title, x_label=labels[name], y_label=UNITS[LOSS])
    return Drawing(
        name=file, ax=ax, caption=f"{_said(kind)}. Dots: sets, means over {_range(sets['runs'].to_list())}; Spearman's correlation."
    )


def _range(counts: Sequence[int]) -> str:
    return (
        f"{min(counts)} initialisation{'s' if min(counts) > 1 else ''}"
        if len(set(counts)) == 1
        else f"{min(counts)} to {max(counts)} initialisations"
    )


def _of_widths(table: "pl.DataFrame") -> list[Drawing]:
    import polars as pl

    from orchestrator.figures.means import means

    found = []
    for kind, part in _kinds(table.drop_nulls("width")):
        own = part.with_columns(pair=pl.col("first") + " and " + pl.col("second"))
        title = f"Points that two methods have in common, {_said(kind)}"
        label = f"share of the {max(own['set_size'].to_list())} chosen points"
        ax = means(own, x="width", y="overlap", by="pair", title=title, y_label=label)
        chance = f"; by chance {max(own['chance'].to_list()):.2f}" if own["chance"].null_count() == 0 else ""
        caption = f"{_said(kind)}. Mean over {own['seed'].n_unique()} seeds and its standard error{chance}."
        found.append(Drawing(name=_file("agreement", kind), ax=ax, caption=caption))
    return found


# -- words --------------------------------------------------------------------------------------------------------------------


def _loss_lines(part: "pl.DataFrame", kind: Mapping[str, Any]) -> list[str]:
    import polars as pl

    lines = []
    for y in (LOSS, "least_test_loss"):
        table = comparisons(part, y)
        for method in table["method"].unique(maintain_order=True).to_list() if y == LOSS else [CLAIMED]:
            own = table.filter(pl.col("method") == method)
            sizes = own.drop_nulls("set_size")
            each = "; ".join(f"{row['set_size']}: {_times(row)}" for row in sizes.rows(named=True))
            whole = own.filter(pl.col("set_size").is_null())
            over = f" Over all sizes, each seed once: {_times(whole.row(0, named=True))}." if len(whole) else ""
            lines.append(f"{_said(kind)}: {WORDS[y]} of {NAMES[method]} over that of {NAMES[REFERENCE]}, by set size: {each}.{over}")
            if method == CLAIMED and y == LOSS:
                lines.append(_claim_of_loss(sizes, kind))
    return lines


def _claim_of_loss(sizes: "pl.DataFrame", kind: Mapping[str, Any]) -> str:
    """Whether a small set of the claimed method is better than a random one: at the smaller half of the sizes, corrected by Holm."""
    import polars as pl

    ordered = sizes.sort("set_size")
    small, large = ordered.head((len(ordered) + 1) // 2), ordered.tail(len(ordered) // 2)

    def at(part: "pl.DataFrame", column: str, word: str) -> list[int]:
        return list(part.filter(pl.col(column) == word)["set_size"].to_list())

    lower, higher = at(small, "decided", "lower"), at(small, "decided", "higher")
    every = _list(small["set_size"].to_list())
    if higher:
        text = f"is contradicted at {_list(higher)} of the sizes {every}" + (f", though seen at {_list(lower)}" if lower else "")
    elif lower:
        text = f"is seen at {_list(lower)} of the sizes {every}"
    else:
        num_lower = len(small.filter(pl.col("value") < 1.0))
        text = f"is neither seen nor contradicted: none of the sizes {every} is decided, {num_lower} of {len(small)} are lower"
    alone = [f"{word} at {_list(own)}" for word in ("lower", "higher") if (own := at(small, "verdict", word))]
    corrected = f" (with Holm's correction for {len(ordered)} sizes; each by itself: {', '.join(alone) or 'none'})"
    worse = at(large, "decided", "higher")
    after = f" At {_list(worse)} it is worse than {NAMES[REFERENCE]}." if worse else ""
    return f"{_said(kind)}: the claim that {NAMES[CLAIMED]} beats {NAMES[REFERENCE]} at small set sizes {text}{corrected}.{after}"


def _observable_lines(part: "pl.DataFrame", kind: Mapping[str, Any]) -> list[str]:
    """Whether entropy and trace of the claimed method's sets are larger."""
    import polars as pl

    lines = []
    for name in CLAIMED_OBSERVABLES:
        own = comparisons(part, name).filter(pl.col("method") == CLAIMED)
        verdicts = own.drop_nulls("set_size")["decided"].to_list()
        if verdicts:
            larger, smaller = verdicts.count("higher"), verdicts.count("lower")
            whole = _times(own.filter(pl.col("set_size").is_null()).row(0, named=True))
            lines.append(
                f"{_said(kind)}: {WORDS[name]} of the sets of {NAMES[CLAIMED]} over that of {NAMES[REFERENCE]}: {whole} over all sizes. "
                f"That it is larger {_standing(larger, smaller, len(verdicts))}."
            )
    return lines


def _relation_lines(part: "pl.DataFrame", kind: Mapping[str, Any]) -> list[str]:
    """Whether sets of more entropy or trace generalise better, by the correlation over all sizes.

    That is claimed of sets of one method alone: methods are few, and what else differs between them is much.
    """
    import polars as pl

    table, lines = correlations(part), []
    for scope in table["scope"].unique(maintain_order=True).to_list():
        for name in OBSERVABLES:
            own = table.filter((pl.col("observable") == name) & (pl.col("scope") == scope))
            each = "; ".join(f"{row['set_size']}: {_correlated(row)}" for row in own.filter(pl.col("set_size") > 0).rows(named=True))
            whole = own.filter(pl.col("set_size").is_null()).row(0, named=True)
            if math.isnan(whole["value"]):
                continue
            claim = f" That sets of more {WORDS[name]} generalise better {STANDING[whole['verdict']]}." if scope == ONE_METHOD else ""
            lines.append(
                f"{_said(kind)}, {scope}: rank correlation of {WORDS[name]} with test loss within one set size: {_correlated(whole)} over "
                f"{whole['num_points']} sets; by set size {each}.{claim}"
            )
    return lines


def _standing(num_for: int, num_against: int, num: int) -> str:
    """A claim's standing by the set sizes that decide for and against it."""
    if num_for == num:
        return f"is seen at {'every size' if num > 1 else 'the one size'}"
    if num_for and not num_against:
        return f"is seen at {num_for} of {num} sizes, undecided at the others"
    if num_for:
        return f"is seen at {num_for} and contradicted at {num_against} of {num} sizes"
    return f"is contradicted at {num_against} of {num} sizes" if num_against else f"is undecided at all {num} sizes"


def _agreement_lines(table: "pl.DataFrame") -> list[str]:
    import polars as pl

    lines = []
    for kind, part in _kinds(table):
        size, chance = max(part["set_size"].to_list()), part["chance"].mean()
        by_chance = f" (by chance {chance:.2f})" if isinstance(chance, float) else ""
        for first, second in PAIRS:
            own = part.filter((pl.col("first") == first) & (pl.col("second") == second))
            by_width = own.group_by("width").agg(pl.col("overlap").mean()).sort("width")
            each = "; ".join(f"width {width}: {share:.2f}" for width, share in by_width.rows())
            if each:
                lines.append(f"{_said(kind)}: of {size} points of {NAMES[first]}, {NAMES[second]} chooses as well: {each}{by_chance}.")
    return lines


def _times(row: Mapping[str, Any]) -> str:
    """`x0.75 [0.66, 0.86], 9 of 10 pairs lower, p = 0.004`."""
    interval = f"x{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{interval}, {row['num_below']} of {row['num_pairs']} lower, p = {row['p_value']:.2g}"


def _correlated(row: Mapping[str, Any]) -> str:
    return f"{row['value']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]"


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _said(kind: Mapping[str, Any]) -> str:
    return f"{kind['data'].replace('_', ' ')}, {kind['model']}{', balanced classes' if kind['classes'] == 'balanced' else ''}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _file(name: str, kind: Mapping[str, Any]) -> str:
    parts = ("selection", name.replace("_traced", ""), *(value for value in kind.values() if value != "any"))
    return "-".join(part.replace("_", "-").replace(".", "-") for part in parts)


STUDY = Study(
    name="data_selection",
    title="Choosing training sets, and what their kernels tell",
    sweeps={
        METHODS_SWEEP: "test loss, entropy and trace of the sets that four methods choose, against their size",
        SETS_SWEEP: "entropy and trace of random sets of one size against their test loss, of any classes and of balanced ones",
        WIDTH_SWEEP: "points that distillation and pivoted Cholesky have in common, against the width",
    },
    sections=(methods, random_sets, wide_networks),
)
