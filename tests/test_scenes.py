"""The world of `roilab.scenes`: same seed same picture, exact boxes, edits that touch one object only, relations by hand."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from roilab import scenes
from roilab.scenes import Scene, SceneObject, sample, shapes

SEEDS = range(40)


def silhouette(item, size, grow=1):
    """The object's mask on the picture, grown by `grow` pixels: painted here from `polygons`, not by the renderer."""
    mask = Image.new("L", (size * 4, size * 4))
    for points in item.polygons:
        ImageDraw.Draw(mask).polygon([(x * 4, y * 4) for x, y in points], fill=255)
    inside = np.asarray(mask.resize((size, size), Image.Resampling.BOX)) > 0
    for _ in range(grow):
        padded = np.pad(inside, 1)
        inside = np.max([padded[y : y + size, x : x + size] for y in range(3) for x in range(3)], 0)
    return inside


def test_same_seed_same_pixels_and_other_seed_other_scene():
    assert sample(5) == sample(5)
    assert np.array_equal(np.asarray(sample(5).image), np.asarray(sample(5).image))
    assert len({sample(s).objects for s in SEEDS}) == len(SEEDS)


def test_sizes_and_scaling():
    scene = sample(3)
    small = sample(3, size=112)
    assert scene.image.size == (224, 224) and small.image.size == (112, 112) and small == scene.scaled(112)
    for item, other in zip(scene.objects, small.objects):
        assert np.allclose(np.array(item.box) / 2, other.box)
    with pytest.raises(ValueError, match="scene of 8 px"):
        scene.scaled(8)


def test_every_scene_is_well_formed():
    for seed in range(200):
        scene = sample(seed)
        assert 3 <= len(scene.objects) <= 6 and [o.id for o in scene.objects] == list(range(len(scene.objects)))
        for item in scene.objects:
            x1, y1, x2, y2 = item.box
            assert 0 <= x1 < x2 <= 224 and 0 <= y1 < y2 <= 224
            longest = max(x2 - x1, y2 - y1)
            assert longest * 128 / 224 >= (44 if item.is_person else 22), (
                seed,
                item.kind,
                longest,
            )  # at the 128 px that tiny sees
            assert (item.target is not None) == (item.action in ("pointing", "holding", "kicking"))


def test_occlusion_is_bounded():
    """No object loses more than a third of its silhouette to those in front of it."""
    for seed in SEEDS:
        scene = sample(seed)
        masks = [silhouette(o, 224, grow=0) for o in scene.objects]
        for i, mask in enumerate(masks):
            covered = np.any(masks[i + 1 :], axis=0) if masks[i + 1 :] else np.zeros_like(mask)
            assert (mask & covered).sum() <= mask.sum() / 3, (seed, i)


def test_boxes_are_exact_to_the_pixel():
    """What the renderer paints differs from the bare background exactly inside the box."""
    for seed in SEEDS:
        scene = sample(seed)
        for item in scene.objects:
            alone = np.asarray(replace(scene, objects=(item,)).image).astype(int)
            empty = np.asarray(replace(scene, objects=()).image).astype(int)
            ys, xs = np.nonzero(np.abs(alone - empty).sum(-1))
            painted = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert np.abs(np.array(painted) - item.box).max() <= 1.6, (seed, item.kind, painted, item.box)


def test_parts_lie_inside_their_object():
    names = set()
    for seed in SEEDS:
        for item in sample(seed).objects:
            expected = (
                {"head"} | ({"hat"} if item.headgear != "none" else set())
                if item.is_person
                else set(filter(None, [scenes.PARTS.get(item.kind)]))
            )
            assert set(item.parts) == expected
            assert len(item.parts.get("wheel", [])) in (0, 2)
            for name, boxes in item.parts.items():
                names.add(name)
                for x1, y1, x2, y2 in boxes:
                    assert item.box[0] <= x1 < x2 <= item.box[2] and item.box[1] <= y1 < y2 <= item.box[3]
    assert len(names) >= 10


@pytest.mark.parametrize("seed", range(12))
def test_edit_changes_no_pixel_outside_the_object(seed):
    scene = sample(seed)
    rng = random.Random(seed)
    before = np.asarray(scene.image).astype(int)
    for item in scene.objects:
        colour = rng.choice([c for c in scenes.COLOURS if c != item.colour])
        changes = [{"colour": colour}]
        changes += [{"mood": "sad" if item.mood != "sad" else "happy"}, {"headgear": "helmet" if item.headgear != "helmet" else "cap"}] if item.is_person else [
            {"material": "striped" if item.material != "striped" else "matte"}, {"kind": "ball" if item.kind != "ball" else "house"}, {"size": "small" if item.size != "small" else "medium"}]  # fmt: skip
        for change in changes:
            edited = scene.edit(item, **change)
            after = np.asarray(edited.image).astype(int)
            allowed = silhouette(item, 224) | silhouette(edited.object(item.id), 224)
            changed = np.abs(after - before).sum(-1) > 0
            assert changed.any(), (item.kind, change)
            assert not (changed & ~allowed).any(), (item.kind, change)
            name, value = next(iter(change.items()))
            assert edited.object(item.id).attributes[name] == value
            assert [o for o in edited.objects if o.id != item.id] == [o for o in scene.objects if o.id != item.id]


def test_edit_refuses_what_cannot_be():
    person = SceneObject(0, "person", "red", action="waving", mood="sad", headgear="cap", facing="left")
    holder = replace(person, id=1, action="holding", target=2, x=60)
    car = SceneObject(2, "car", "blue", material="matte", size="large")
    scene = Scene(0, "sun", (person, holder, car))
    for item, change, message in (
        (car, {"mood": "sad"}, "a car has no 'mood'"), (person, {"material": "matte"}, "a person has no 'material'"),
        (car, {"colour": "mauve"}, "colour='mauve' is unknown"), (person, {"action": "kicking"}, "kicking needs a target"),
        (holder, {"facing": "right"}, "must face it"), (7, {"colour": "red"}, "no object 7"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            scene.edit(item, **change)
    assert scene.edit(holder, action="standing").object(1).target is None


def test_relations_by_hand():
    def thing(id, x, y, height, colour="red"):
        return SceneObject(id, "ball", colour, material="matte", size="small", x=x, y=y, height=height)

    scene = Scene(0, "sun", (thing(0, 50, 60, 40), thing(1, 150, 65, 60), thing(2, 60, 180, 44, "blue")))
    assert scene.holds("left of", 0, 1) is True and scene.holds("left of", 1, 0) is False
    assert scene.holds("left of", 0, 2) is None  # 10 of 224 px apart: too close to call
    assert scene.holds("above", 0, 2) is True and scene.holds("above", 0, 1) is None
    assert scene.holds("larger than", 1, 0) is True and scene.holds("larger than", 0, 2) is None
    assert scene.holds("same colour", 0, 1) is True and scene.holds("same colour", 0, 2) is False
    assert ("left of", 0, 1) in scene.relations and ("left of", 1, 0) not in scene.relations
    with pytest.raises(ValueError, match="unknown relation 'behind'"):
        scene.holds("behind", 0, 1)


def test_gaze_needs_one_clear_nearest_object_ahead():
    watcher = SceneObject(
        0, "person", "red", action="standing", mood="sad", headgear="none", facing="right", x=40, y=112, height=100
    )
    near = SceneObject(1, "ball", "red", material="matte", size="small", x=110, y=90, height=30)
    far, beside = replace(near, id=2, x=200), replace(near, id=2, x=112, y=60)
    assert Scene(0, "sun", (watcher, near, far)).holds("looking at", 0, 1) is True
    assert Scene(0, "sun", (watcher, near, far)).holds("looking at", 0, 2) is False
    assert Scene(0, "sun", (watcher, near, beside)).holds("looking at", 0, 1) is None
    turned = replace(watcher, facing="left")
    assert Scene(0, "sun", (turned, near, far)).holds("looking at", 0, 1) is False


def test_pointing_arm_meets_its_target():
    seen = 0
    for seed in range(150):
        scene = sample(seed)
        for person in scene.objects:
            if person.action != "pointing":
                continue
            seen += 1
            target = scene.object(person.target)
            sign = -1 if person.facing == "left" else 1
            start = np.array(
                [person.x + sign * shapes.SHOULDER[0] * person.height, person.y + shapes.SHOULDER[1] * person.height]
            )
            arm = np.array([sign * np.cos(np.radians(person.angle)), np.sin(np.radians(person.angle))])
            for other in scene.objects:
                if other.id == person.id:
                    continue
                way = np.array(other.centre) - start
                cosine = arm @ way / np.linalg.norm(way)
                assert cosine > 0.999 if other.id == target.id else cosine < np.cos(np.radians(24)), (seed, other.id)
    assert seen >= 10


def test_held_out_combinations():
    def combinations(scene):
        return {(o.colour, o.kind) for o in scene.objects}

    assert {kind for _, kind in scenes.HELD_OUT} == set(scenes.KINDS)
    assert not any(combinations(sample(s, held_out=False)) & scenes.HELD_OUT for s in range(300))
    assert all(combinations(sample(s, held_out=True)) & scenes.HELD_OUT for s in range(60))


def test_all_words_of_the_world_occur():
    seen = {name: set() for name in ("kind", "colour", "material", "size", "action", "mood", "headgear")}
    settings = set()
    for seed in range(150):
        scene = sample(seed)
        settings.add(scene.setting)
        for item in scene.objects:
            for name, value in item.attributes.items():
                seen.get(name, set()).add(value)
    assert settings == set(scenes.SETTINGS)
    assert (
        seen["kind"] == {*scenes.KINDS, "person"}
        and seen["colour"] == set(scenes.COLOURS)
        and seen["material"] == set(scenes.MATERIALS)
    )
    assert seen["size"] == set(scenes.SIZES) and seen["action"] == set(scenes.ACTIONS)
    assert seen["mood"] == set(scenes.MOODS) and seen["headgear"] == set(scenes.HEADGEAR)
