"""The corruptions once more, token by token in plain Python, as their docstrings tell them."""

ALL = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
CHOICE, KIND, TOKEN, SPARE = range(4)


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & ALL
    z = (z ^ z >> 27) * 0x94D049BB133111EB & ALL
    return z ^ z >> 31


def split_mix_64(state, count):
    """The generator as its authors print it."""
    found = []
    for _ in range(count):
        state = state + GOLDEN & ALL
        found.append(mix(state))
    return found


def random_bits(seed, *, stream, index, count):
    """The numbers of one row."""
    key = mix((mix(seed & ALL) + stream * GOLDEN) & ALL)
    return split_mix_64(mix((index + key) & ALL), count)


class Row:
    """One clean row: ids without padding, and the numbers that are drawn for it."""

    def __init__(self, ids, *, seed, index, protected):
        self.ids, self.seed, self.index = ids, seed, index
        self.eligible = [at for at, id_ in enumerate(ids) if id_ not in protected]

    def bits(self, stream):
        return random_bits(self.seed, stream=stream, index=self.index, count=len(self.ids))

    def uniform(self, stream):
        return [(bits >> 11) * 2.0**-53 for bits in self.bits(stream)]

    def chosen(self, rate):
        if not rate or not self.eligible:
            return set()
        draw = self.uniform(CHOICE)
        found = {at for at in self.eligible if draw[at] < rate}
        return found or {min(self.eligible, key=draw.__getitem__)}


def masked(row, *, rate, mask_rate, random_rate, mask_id, others):
    """Gives corrupted ids and the chosen places."""
    chosen, kind, token = row.chosen(rate), row.uniform(KIND), row.bits(TOKEN)
    ids = list(row.ids)
    for at in chosen:
        if kind[at] < mask_rate:
            ids[at] = mask_id
        if kind[at] >= 1.0 - random_rate:
            ids[at] = others[(token[at] >> 32) * len(others) >> 32]
    return ids, chosen, list(range(len(ids)))


def with_deletions(row, *, rate):
    """Gives the ids that are left, the places of those that are not, and of those that are."""
    chosen = row.chosen(rate)
    if len(chosen) == len(row.ids) > 0:
        spare = row.uniform(SPARE)
        chosen -= {min(row.eligible, key=spare.__getitem__)}
    places = [at for at in range(len(row.ids)) if at not in chosen]
    return [row.ids[at] for at in places], chosen, places


def with_spans(row, *, rate, mean_length, marks):
    """Gives ids with one mark for each hidden span; `marks` may be one id or several."""
    hidden = set()
    if rate and row.eligible:
        stay = 1.0 - 1.0 / mean_length
        enter = rate * (1.0 - stay) / (1.0 - rate)
        inside = False
        for at, draw in enumerate(row.uniform(CHOICE)):
            inside = draw < (rate if at == 0 else stay if inside else enter)
            hidden |= {at} if inside and at in row.eligible else set()
        spare = row.uniform(SPARE)
        hidden = hidden or {min(row.eligible, key=spare.__getitem__)}
    starts = [at for at in sorted(hidden) if at - 1 not in hidden]
    if isinstance(marks, tuple):
        end = starts[len(marks)] if len(starts) > len(marks) else len(row.ids)
        hidden = {at for at in hidden if at < end}
        starts, names = starts[: len(marks)], dict(zip(starts, marks, strict=False))
    else:
        names = dict.fromkeys(starts, marks)
    places = [at for at in range(len(row.ids)) if at not in hidden or at in starts]
    return [names.get(at, row.ids[at]) for at in places], hidden, places
