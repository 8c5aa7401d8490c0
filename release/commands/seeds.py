"""Seeds as a command line names them."""

from release.errors import UserError


def parse_seeds(seeds: str) -> tuple[int, ...]:
    """Whole numbers of a comma-separated list, in the order given; UserError if one is twice."""
    fields = [field.strip() for field in seeds.split(",")]
    if not all(field.isdecimal() for field in fields):
        raise UserError(f"--seeds {seeds!r}: give whole numbers, comma-separated, such as 0,1,2")
    numbers = tuple(map(int, fields))
    if double := [number for number in numbers if numbers.count(number) > 1]:
        raise UserError(f"--seeds {seeds!r}: {double[0]} is there twice; give each seed once")
    return numbers
