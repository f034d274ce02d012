"""What `python -m igpt_jax plan` prints for people."""

from typing import Any

NO_DATA_SHEET = "not known, since igpt_jax/model/flops.py has no data sheet of this chip"


def in_words(plan: dict[str, Any], what: str) -> str:
    """Formats a plan.

    Args:
      plan: of `describe`, and perhaps with "recommended", the model that a scaling law recommends.
      what: the program that was compiled.
    """
    mesh = " x ".join(f"{name} {ways}" for name, ways in plan["mesh"].items() if name != "slice" or ways > 1)
    repeated = plan["executed_flops_per_step"] / plan["model_flops_per_step"] - 1
    return "\n".join(
        [
            *(_recommendation(plan["recommended"]) if "recommended" in plan else []),
            f"{what} on {plan['topology']}: {plan['devices']} devices ({plan['chip']}), {mesh}",
            _memory(plan),
            f"arithmetic: {plan['model_flops_per_step']:.3e} FLOPs a step, {repeated:+.0%} recomputed "
            f"(remat {plan['remat']})",
            _times(plan),
            f"collectives: {_collectives(plan['collectives'])}",
            f"compiled in {plan['compile_seconds']:.0f} s",
        ]
    )


def _memory(plan: dict[str, Any]) -> str:
    size = {name: count and f"{count / 2**30:.2f}" for name, count in plan["bytes_per_device"].items()}
    needed = f"memory a device: {size['arguments']} GiB arguments + {size['temporaries']} temporaries; "
    if not size["hbm"]:
        return f"{needed}{size['total']} GiB in all; what it has is {NO_DATA_SHEET}"
    return f"{needed}{size['total']} of {size['hbm']} GiB: {'fits' if plan['fits'] else 'DOES NOT FIT'}"


def _times(plan: dict[str, Any]) -> str:
    if not plan["seconds"]:
        return f"seconds a step: {NO_DATA_SHEET}"
    names = {"compute": "compute", "hbm": "HBM", "interconnect": "interconnect", "network": "network between slices"}
    seconds = ", ".join(f"{names[name]} {x:.4f}" for name, x in plan["seconds"].items())
    return f"seconds a step: {seconds}: bound by {plan['bound']}, MFU at most {plan['mfu_ceiling']:.0%}"


def _collectives(collectives: dict[str, dict[str, int]] | None) -> str:
    if collectives is None:
        return "not told by the compiler"
    counted = (f"{kind} {counts['in_loops']} in loops + {counts['outside']}" for kind, counts in collectives.items())
    return ", ".join(counted) or "none"


def _recommendation(best: dict[str, Any]) -> list[str]:
    lowest, highest = best["budgets_of_the_law"]
    hours = best["hours_at_least"]
    lines = [
        f"the best model for {best['flops']:g} FLOPs: {best['parameters_in_matmuls']:.3g} parameters in matmuls "
        f"({best['layers']} layers, width {best['width']}, {best['heads']} heads)",
        f"its training: {best['steps']:,} steps, {best['images']:,} images"
        + (f", at least {hours:,.1f} hours on this slice" if hours else ""),
    ]
    if not lowest <= best["flops"] <= highest:
        lines.append(f"this is extrapolated: the law was fitted to budgets of {lowest:g} to {highest:g} FLOPs")
    return lines
