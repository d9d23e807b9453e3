"""The order of frames by their names, and which of a folder's frames are one video's."""

import hashlib
import random

import pytest

from midway_hub.frame_names import natural_key, natural_path_key, one_series, series_of


def shuffled(names):
    names = list(names)
    random.Random(0).shuffle(names)
    return names


FORMS = [
    *("{}.png", "{:05d}.png", "frame_{}.png", "frame{}.jpg", "shot2_{}.png", "v1.{}.png", "frame ({}).png", "[{}].png"),
    *("{}_left.png", "{}.0s.png", "clip-{}.jpg", "{}.jp2", "x{}y2.png", "2024-05-01 {}.png", "走{}步.png", "t={}.bmp"),
]


@pytest.mark.parametrize("form", FORMS)
def test_frames_are_in_the_order_of_their_numbers(form):
    names = [form.format(number) for number in range(120)]
    assert sorted(shuffled(names), key=natural_key) == names
    series = one_series(shuffled(names))
    assert list(series.names) == names
    assert series.numbers == tuple(range(120))


@pytest.mark.parametrize("form", ["{}.png", "frame_{}.png", "frame ({}).png", "t={}.png"])
def test_a_minus_where_no_hyphen_would_stand_is_a_sign(form):
    names = [form.format(number) for number in range(-12, 12)]
    assert sorted(shuffled(names), key=natural_key) == names
    assert one_series(names).numbers == tuple(range(-12, 12))


@pytest.mark.parametrize("form", ["clip-{}.png", "a - {}.png", "2024-{}.png"])
def test_a_minus_after_a_word_or_a_number_is_a_hyphen(form):
    names = [form.format(number) for number in (1, 2, 10, 11)]
    assert sorted(shuffled(names), key=natural_key) == names


@pytest.mark.parametrize(
    "names",
    [
        ["frame.png", "frame (1).png", "frame (2).png", "frame (10).png"],
        ["1.png", "01.jpg", "2.png", "003.png", "10.png"][1:],
        ["a1b2.png", "a1b10.png", "a2b1.png", "a10b1.png"],
        ["IMG_1.png", "img_2.PNG", "Img_10.png"],
        ["9.png", "10.png", "a.png", "b1.png", "b01.txt"][:4],
        ["99999999999999999999998.png", "99999999999999999999999.png", "100000000000000000000000.png"],
        ["٢.png", "٣.png", "١٠.png"],
    ],
)
def test_mixed_names_are_ordered_as_people_read_them(names):
    assert sorted(shuffled(names), key=natural_key) == names


def test_names_that_read_the_same_are_ordered_by_their_letters():
    assert sorted(["01.png", "1.png", "001.png"], key=natural_key) == ["001.png", "01.png", "1.png"]


def test_paths_are_ordered_folder_by_folder():
    names = ["a.png", "day 2/1.png", "day 2/10.png", "day 10/2.png", "v1.9/x.png", "v1.10/x.png"]
    assert sorted(shuffled(names), key=natural_path_key) == names


# -- several videos in one folder --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forms", "named"),
    [
        (("{}_left.png", "{}_right.png"), ["*_left.png", "*_right.png"]),
        (("left{}.png", "right{}.png"), ["left*.png", "right*.png"]),
        (("cam0_{}.png", "cam1_{}.png"), ["cam0_*.png", "cam1_*.png"]),
        (("{}_cam0.png", "{}_cam10.png"), ["*_cam0.png", "*_cam10.png"]),
        (("scene2-frame{}.png", "scene10-frame{}.png"), ["scene2-frame*.png", "scene10-frame*.png"]),
    ],
)
def test_frames_of_several_cameras_are_told_apart(forms, named):
    names = [form.format(number) for form in forms for number in range(12)]
    found, strays = series_of(shuffled(names))
    assert [item.form for item in found] == named
    assert [list(item.names) for item in found] == [[form.format(number) for number in range(12)] for form in forms]
    assert not strays
    with pytest.raises(ValueError, match=r"frames of 2 videos: .* \(12\), .*; give each a folder of its own"):
        one_series(names)


NS, US = 1403636579763555584, 1532402927612460


@pytest.mark.parametrize(
    ("names", "stamps", "decimals"),
    [
        ([f"{NS + 50000128 * n}.png" for n in range(12)], [NS + 50000128 * n for n in range(12)], 0),  # EuRoC
        ([f"{1305031102 + n // 4}.{n % 4 * 25:02d}0313.png" for n in range(12)], None, 6),  # TUM
        ([f"{1305031102 + n // 4}_{n % 4 * 25:02d}0313.png" for n in range(12)], None, 6),
        ([f"ring_front_center_{NS + 49999000 * n + n % 3}.jpg" for n in range(12)], None, 0),  # Argoverse
        ([f"n015-2018-07-24-11-22-45+0800__CAM_FRONT__{US + 500_000 * n}.jpg" for n in range(12)], None, 0),  # nuScenes
        ([f"frame_{n:04d}_t{US + 33_000 * n}.png" for n in range(12)], [US + 33_000 * n for n in range(12)], 0),
    ],
)
def test_timestamps_of_cameras_are_one_video_in_their_order(names, stamps, decimals):
    series = one_series(shuffled(names))
    assert list(series.names) == names
    assert series.decimals == decimals
    assert stamps is None or list(series.stamps) == stamps


def test_drives_in_one_folder_are_one_video_in_the_order_of_their_times():
    names = [
        f"n015-2018-07-{day}-11-22-45+0800__CAM_FRONT__{US + 10**11 * day + 500_000 * n}.jpg"
        for day in (24, 25)
        for n in range(5)
    ]
    assert list(one_series(shuffled(names)).names) == names


def test_dates_with_times_of_day_are_one_video():
    names = [f"2024-05-01_12-{n // 60:02d}-{n % 60:02d}.jpg" for n in range(150)]
    series = one_series(shuffled(names))
    assert list(series.names) == names
    assert series.numbers is None


@pytest.mark.parametrize(
    "names",
    [
        ["0a1b2c.jpg", "9f8e7d.jpg", "ab12cd34.jpg", "ffee.jpg"],
        [f"{hashlib.sha256(str(number).encode()).hexdigest()[:16]}.jpg" for number in range(200)],  # nuPlan
        [f"{'xyz'[number % 3] * number}{number}.png" for number in range(1, 12)],
    ],
)
def test_names_that_are_tokens_give_no_order(names):
    with pytest.raises(ValueError, match=r"their names give no order: .* rename them to numbers"):
        series_of(names)


@pytest.mark.parametrize(
    "names", [["0.jpg", "0.png", "1.jpg", "1.png"], ["1.png", "01.png", "2.png"], ["a 1.png", "a 01.png"]]
)
def test_two_files_of_one_number_are_named(names):
    with pytest.raises(ValueError, match=r"frames are doubled: .* and .* have one number"):
        series_of(names)


@pytest.mark.parametrize("stray", ["m.png", "mask_0.png", "cover.jpg"])
def test_files_named_unlike_the_frames_are_strays(stray):
    names = [f"{number}.png" for number in range(8)]
    found, strays = series_of([stray, *names])
    assert [list(item.names) for item in found] == [names]
    assert strays == [stray]
    with pytest.raises(ValueError, match=f"1 of 9 are named unlike the others .{stray}.; move them elsewhere"):
        one_series([stray, *names])


@pytest.mark.parametrize(
    "names",
    [
        ["0001_walk.png", "0002_run.png", "0010_a1.png", "0011_b.png"],
        ["a.png", "b.png", "c.png"],
        ["before.png", "after 1.png"][::-1],
        ["only.png"],
        ["7.png"],
    ],
)
def test_numbers_at_the_start_no_numbers_and_few_files_are_one_video(names):
    assert list(one_series(shuffled(names)).names) == names


@pytest.mark.parametrize(
    "names",
    [
        [f"t={number / 2}.png" for number in range(-6, 6)],
        [f"{number / 4:.2f}.png" for number in range(-7, 7)],
        [f"at_{number / 10:.1f}_s.png" for number in range(-30, 30)],
        [f"[-{number / 2}].png" for number in range(9, 0, -1)],
    ],
)
def test_signed_decimals_come_in_order(names):
    assert list(one_series(reversed(names)).names) == names


@pytest.mark.parametrize(
    "names",
    [["0.1", "0.15", "0.2"], ["1305031102.2", "1305031102.1753", "1305031102.18"], ["t_1.5", "t_1.75", "t_1.8"]],
)
def test_decimals_of_different_length_that_may_be_versions_are_refused(names):
    with pytest.raises(ValueError, match=r"decimals or versions.*write as many digits behind every point"):
        one_series(f"{name}.png" for name in names)


@pytest.mark.parametrize("last", [["v1.9", "v1.10", "v1.11"], ["a2.8", "a2.9", "a2.10"], ["0.5", "0.50", "0.51"]])
def test_versions_come_in_the_order_of_their_parts(last):
    assert [name[:-4] for name in one_series(f"{name}.png" for name in reversed(last)).names] == last


@pytest.mark.parametrize(
    "names",
    [
        ["12-31-2023_1", "01-01-2024_2", "01-02-2024_3"],
        ["31.12.2023", "01.01.2024", "02.01.2024"],
        ["IMG 31-12-2023 235959", "IMG 01-01-2024 000000", "IMG 02-01-2024 000000"],
    ],
)
def test_dates_that_end_with_the_year_are_refused(names):
    with pytest.raises(ValueError, match=r"dates end with the year and give no order.*write them as 2024-01-31"):
        one_series(f"{name}.png" for name in names)


def test_a_date_that_is_the_same_everywhere_is_no_hindrance():
    names = [f"31-12-2023_{number}.png" for number in range(1, 13)]
    assert list(one_series(reversed(names)).names) == names
