"""Seeded damage to files: bytes that change, and JSON or YAML values that nobody expects."""

import copy

NASTY = (
    None,
    True,
    -1,
    0,
    1,
    10**12,
    -(10**12),
    2**63,
    10**100,
    0.5,
    -1.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "text",
    "x" * 3000,
    "\x1b[2J\n[/b]",
    "1",
    [],
    {},
    [None],
    [1, 2, 3],
    [[["deep"]]],
    {"key": "value"},
    ["a", "a"],
)


def damaged_bytes(random, content):
    """Return a copy of the content with one to three changes: flipped bits, cuts, repeats, insertions, zeros."""
    content = bytearray(content)
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(content) + 1)
        length = random.choice((1, 1, 8, 64, 1000))
        change = random.randrange(6)
        if change == 0 and place < len(content):
            content[place] ^= 1 << random.randrange(8)
        elif change == 1:
            del content[place:]
        elif change == 2:
            del content[place : place + length]
        elif change == 3:
            content[place:place] = content[place : place + length]
        elif change == 4:
            content[place:place] = random.randbytes(length)
        elif change == 5:
            content[place : place + length] = bytes(min(length, len(content) - place))
    return bytes(content)


def damaged_tree(random, tree):
    """Return a copy of nested dictionaries and lists with one or two entries replaced, removed, renamed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(random.randint(1, 2)):
        places = list(_places(tree))
        container, key = random.choice(places)
        change = random.randrange(5)
        if change <= 2:
            container[key] = copy.deepcopy(random.choice(NASTY))
        elif change == 3:
            value = container.pop(key)
            if isinstance(container, dict) and random.random() < 0.5:
                container[f"{key}x"] = value
        elif isinstance(container, dict):
            container["added"] = copy.deepcopy(random.choice(NASTY))
        else:
            container.append(copy.deepcopy(random.choice(NASTY)))
    return tree


def _places(tree):
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], (dict, list)):
            yield from _places(tree[key])
