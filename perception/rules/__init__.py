"""Rules: lines that tracked boxes cross, zones that they are in, and conditions on the pixels of classes.

rules = read_rules("rules.yaml")
engine = RuleEngine(rules, model.card)
for prediction in tracked_predictions:
    events, readings = engine.update(prediction)
"""
