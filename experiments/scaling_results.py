"""The tables and figures of scaling laws."""

import dataclasses
import math
import pathlib
from typing import Any

from experiments.scaling_figures import draw_isoflops, draw_optima, draw_surface
from experiments.tables import write_json
from igpt_jax.files import atomic_write


def write_results(
    directory: pathlib.Path,
    facts: dict[str, Any],
    fitted: dict[tuple[str, int], dict[str, Any]],
    held_out: dict[str, dict[str, float]],
) -> None:
    """Writes results.json, table.md and the figures of what has been fitted so far."""
    plain = {f"{recipe}, {resolution}x{resolution}": _plain(law) for (recipe, resolution), law in fitted.items()}
    write_json(directory / "results.json", facts | {"laws": plain, "held_out": held_out})
    for (recipe, resolution), law in fitted.items():
        budgets = [best.flops for best in law["optima"]]
        growth = {"coefficient": law["parameters_coefficient"], "exponent": law["parameters_exponent"]}
        write_json(directory / f"law-{recipe}-{resolution}.json", growth | {"budgets": (min(budgets), max(budgets))})
    with atomic_write(directory / "table.md") as partial:
        partial.write_text(table(fitted, held_out))
    for (recipe, resolution), law in fitted.items():
        title = f"{recipe} recipe, {resolution}x{resolution}"
        draw_isoflops(directory / f"isoflops-{recipe}-{resolution}.png", title, law["points"])
        draw_surface(directory / f"surface-{recipe}-{resolution}.png", title, law["points"], law["surface"])
    draw_optima(directory / "optima.png", {f"{r}, {s}x{s}": law["optima"] for (r, s), law in fitted.items()})


def _plain(value: Any) -> Any:
    """Converts a value to what JSON has; NaN, for what is unknown, becomes null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def table(fitted: dict[tuple[str, int], dict[str, Any]], held_out: dict[str, dict[str, float]]) -> str:
    """Formats the laws as Markdown."""
    lines = [
        "# Scaling laws in miniature",
        "",
        "N is the number of parameters in matmuls, D the number of tokens, C the FLOPs. Intervals hold 90 % of the",
        "bootstrap's draws.",
        "",
        "| recipe, resolution | best N grows as C^ | interval | best D as C^ | interval | for the probe | for samples "
        "| E | minima inside |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    named = {f"{recipe}, {resolution}x{resolution}": law for (recipe, resolution), law in fitted.items()}
    for name, law in named.items():
        inside = sum(best.inside for best in law["optima"])
        cells = [
            name,
            f"{law['parameters_exponent']:.2f}",
            _interval(law["intervals"].parameters),
            f"{law['tokens_exponent']:.2f}",
            _interval(law["intervals"].tokens),
            _exponent(law["probe_tokens_exponent"]),
            _exponent(law["frechet_tokens_exponent"]),
            f"{law['surface'].irreducible:.3f}",
            f"{inside} of {len(law['optima'])}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| recipe, resolution | C | best N | tokens a parameter | loss | best N for the probe | for samples |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, law in named.items():
        for best_loss, *others in zip(law["optima"], law["probe_optima"], law["frechet_optima"], strict=True):
            cells = [
                name,
                f"{best_loss.flops:.0e}",
                f"{best_loss.parameters:,.0f}",
                f"{best_loss.tokens / best_loss.parameters:,.0f}",
                f"{best_loss.value:.4f}",
                *(f"{other.parameters:,.0f}" if other.inside else "outside" for other in others),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    if held_out:
        lines += ["", "| recipe | held-out budget: predicted | reached | difference |", "|---|---|---|---|"]
    for recipe, row in held_out.items():
        off = 100 * (row["reached"] / row["predicted"] - 1)
        lines.append(f"| {recipe} | {row['predicted']:.4f} | {row['reached']:.4f} | {off:+.1f} % |")
    return "\n".join(lines) + "\n"


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.2f} to {bounds[1]:.2f}"


def _exponent(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
