"""effects."""

from __future__ import annotations

import argparse

from theracast.output import print_json, require_free, tell, write_text


def effects(options: argparse.Namespace) -> int:
    """Compare the treatments of a study: effects where it allows them, else prognosis under each with its overlap."""
    from theracast_data.home import feature_cache
    from theracast_training.effects.compare import compare_treatments
    from theracast_training.effects.page import effects_page
    from theracast_training.effects.text import comparison_text
    from theracast_training.study import read_study

    for path in (options.out, options.individual):
        if path:
            require_free(path, overwrite=options.overwrite)
    study = read_study(options.study, overrides=options.overrides)
    found = compare_treatments(study, base=options.study.parent, cache=feature_cache())
    content = found.to_json()
    if options.out:
        write_text(options.out, effects_page(content), overwrite=options.overwrite)
    if options.individual:
        write_text(options.individual, found.individual.to_csv(index=False), overwrite=options.overwrite)
    if options.json:
        print_json(content)
    else:
        print(comparison_text(content))
    for path in (options.out, options.individual):
        if path:
            tell(f"wrote {path}")
    return 0
