"""Slots as our own rules have them, once more and in another way: every time that a clock could show is written down first, and
Python's zoneinfo is then asked when a clock shows it.

A nightly job runs once on the days on which clocks are changed. Each line of the input is a question: a zone, an expression in
which every field is a star or a list of numbers (after a star, if it was written with one and a step), and from when until when, in seconds since 1970, with tabs between them. The
answer is the slots after the first and not after the second time.
"""

import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


def ask(question):
    zone, expression, start, end = question.split("\t")
    zone, start, end = ZoneInfo(zone), int(start), int(end)
    fields = expression.split(" ")
    minutes, hours, days, months, weekdays = (
        None if field == "*" else {int(number) for number in field.lstrip("*").split(",")} for field in fields
    )
    # An expression that takes all hours, or every third, goes by what the clock shows.
    chooses_hours = not fields[1].startswith("*")
    times = [
        timedelta(hours=hour, minutes=minute)
        for hour in sorted(range(24) if hours is None else hours)
        for minute in sorted(range(60) if minutes is None else minutes)
    ]
    slots = set()
    date = datetime.fromtimestamp(start, timezone.utc).replace(tzinfo=None, hour=0, minute=0, second=0) - 2 * DAY
    last = datetime.fromtimestamp(end, timezone.utc).replace(tzinfo=None) + 2 * DAY
    while date <= last:
        if matches(date, days, months, weekdays):
            for time in times:
                slots.update(shown(date + time, zone, chooses_hours))
        date += DAY
    return sorted(slot for slot in slots if start < slot <= end)


def matches(date, days, months, weekdays):
    if months is not None and date.month not in months:
        return False
    of_month = None if days is None else date.day in days
    of_week = None if weekdays is None else date.isoweekday() % 7 in weekdays
    if of_month is not None and of_week is not None:
        return of_month or of_week
    return of_month is not False and of_week is not False


def shown(wall, zone, chooses_hours):
    """When a clock shows that, in seconds since 1970."""
    first, second = (wall.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return [seconds(first)]
    if first.utcoffset() > second.utcoffset():
        # Clocks go back: it is shown twice.
        return [seconds(first)] if chooses_hours else [seconds(first), seconds(second)]
    # Clocks go forward, and it is never shown.
    return [forward(second, first, zone)] if chooses_hours else []


def forward(before, after, zone):
    """When they go forward, which is between those two."""
    low, high = seconds(before), seconds(after)
    offset = datetime.fromtimestamp(high, zone).utcoffset()
    while high - low > 1:
        middle = (low + high) // 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return high


def seconds(wall):
    return round(wall.timestamp())


for line in sys.stdin:
    print(*ask(line.rstrip("\n")), flush=True)
