"""Which sources an extraction finds, and what it calls their outputs."""

from pathlib import Path

import pytest

from midway_hub.extraction import find_motion_sources, find_sources


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names(sources) -> list[str]:
    return [source.name for source in sources.items]


def test_a_folder_is_searched_below_in_order_and_names_are_relative_to_it(tmp_path):
    make(tmp_path, "b.mp4", "day/one.JPG", "day/a.mkv", "a.png")
    found = find_sources(tmp_path)
    assert names(found) == ["a.png", "b.mp4", "day/a.mkv", "day/one.JPG"]
    assert [source.kind for source in found.items] == ["image", "video", "video", "image"]


def test_files_of_unknown_type_in_a_folder_are_counted_and_hidden_ones_passed_over(tmp_path):
    make(tmp_path, "a.mp4", "notes.md", "sub/b.npz", ".hidden.mp4", ".cache/c.mp4")
    found = find_sources(tmp_path)
    assert names(found) == ["a.mp4"]
    assert found.ignored == 2


def test_a_linked_folder_is_searched_and_a_loop_of_links_ends(tmp_path):
    make(tmp_path, "videos/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "videos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "videos" / "loop").symlink_to(tmp_path / "videos")
    assert names(find_sources(tmp_path / "videos")) == ["a.mp4", "linked/b.mp4"]


def test_a_list_is_read_relative_to_its_own_folder(tmp_path):
    make(tmp_path, "sets/day/a.mp4", "other/b.mp4")
    listing = tmp_path / "sets" / "train.txt"
    listing.write_text(f"# clips\n\nday/a.mp4\n  {tmp_path / 'other' / 'b.mp4'}  \n")
    found = find_sources(listing)
    assert names(found) == ["day/a.mp4", "b.mp4"]
    assert all(source.paths[0].is_file() for source in found.items)


def test_two_files_that_would_share_an_output_are_refused_by_name(tmp_path):
    make(tmp_path, "one/clip.mp4", "two/clip.mp4")
    with pytest.raises(ValueError, match=r"one/clip.mp4 and .*two/clip.mp4 would both be written to clip.mp4"):
        find_sources([tmp_path / "one", tmp_path / "two" / "clip.mp4"])


def test_clips_that_differ_in_extension_only_do_not_collide(tmp_path):
    make(tmp_path, "clip.mp4", "clip.mov")
    assert names(find_sources(tmp_path)) == ["clip.mov", "clip.mp4"]


def test_a_file_that_is_given_twice_is_taken_once(tmp_path):
    make(tmp_path, "clip.mp4")
    assert names(find_sources([tmp_path, tmp_path / "clip.mp4"])) == ["clip.mp4"]


def test_nothing_to_read_is_an_error_that_says_what_was_looked_for(tmp_path):
    make(tmp_path, "text/a.md")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no inputs; pass images or videos"):
        find_sources([])
    with pytest.raises(ValueError, match=r"text holds no images or videos \(1 other files\)"):
        find_sources(tmp_path / "text")
    with pytest.raises(ValueError, match=r"empty.txt is empty: wanted one path per line"):
        find_sources(tmp_path / "empty.txt")


def test_a_missing_file_is_named_and_in_a_list_so_is_the_line(tmp_path):
    (tmp_path / "list.txt").write_text("# first\nclip.mp4\n")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*clip.mp4"):
        find_sources(tmp_path / "clip.mp4")
    with pytest.raises(FileNotFoundError, match=r"list.txt, line 2: there is no file .*clip.mp4"):
        find_sources(tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*other.txt"):
        find_sources(tmp_path / "other.txt")


def test_a_file_of_unknown_type_that_is_asked_for_by_name_is_refused(tmp_path):
    make(tmp_path, "notes.md")
    with pytest.raises(ValueError, match=r"notes.md is of type '.md'; wanted images or videos \(.bmp"):
        find_sources(tmp_path / "notes.md")


def test_a_list_that_names_a_folder_or_is_no_text_is_refused(tmp_path):
    make(tmp_path, "clips/a.mp4")
    (tmp_path / "list.txt").write_text("clips\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"line 1: .*clips is a folder; wanted"):
        find_sources(tmp_path / "list.txt")
    with pytest.raises(ValueError, match=r"binary.txt is not UTF-8 text"):
        find_sources(tmp_path / "binary.txt")


def test_two_images_are_one_pair_for_motion(tmp_path):
    make(tmp_path, "a.png", "b.png")
    (pair,) = find_motion_sources([tmp_path / "b.png", tmp_path / "a.png"]).items
    assert pair.kind == "pair"
    assert pair.name == "b.png--a.png"
    assert [path.name for path in pair.paths] == ["b.png", "a.png"]


def test_motion_takes_the_videos_of_a_folder_and_ignores_its_images(tmp_path):
    make(tmp_path, "a.png", "b.mp4")
    found = find_motion_sources(tmp_path)
    assert names(found) == ["b.mp4"]
    assert found.ignored == 1


@pytest.mark.parametrize("inputs", [["a.png"], ["a.png", "b.png", "c.png"], ["a.png", "clip.mp4"]])
def test_images_that_are_not_a_pair_are_refused_for_motion(tmp_path, inputs):
    make(tmp_path, *inputs)
    with pytest.raises(ValueError, match="motion takes videos, or exactly two images"):
        find_motion_sources([tmp_path / name for name in inputs])


# -- order and lists -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["clip_{}.mp4", "{}.png", "day {}/a.mp4", "frame ({}).png", "v1.{}.mov", "{}_left.png"]
)
def test_a_folder_is_in_natural_order(tmp_path, form):
    wanted = [form.format(number) for number in range(12)]
    make(tmp_path, *wanted)
    assert names(find_sources(tmp_path)) == wanted


HASHES = ["#20_Rhythm_clap.mp4", "#1306 How to change tires.mp4", "# a.mp4", "plain.mp4"]


def test_a_line_that_is_a_file_is_that_file_also_where_it_begins_with_a_hash(tmp_path):
    make(tmp_path, *HASHES)
    (tmp_path / "list.txt").write_text("# all clips\n#no.mp4\n" + "\n".join(HASHES) + "\n#\n")
    found = find_sources(tmp_path / "list.txt")
    assert names(found) == HASHES
    assert found.left_out.comments == 3
    assert str(found.left_out) == "passed over 3 lines of lists as comments"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_byte_order_marks_blanks_and_quotes_are_no_part_of_paths(tmp_path, end, mark):
    wanted = ["day/a.mp4", "b c.mp4", "#d.mp4", "e.mp4"]
    make(tmp_path, *wanted)
    lines = ["  day/a.mp4\t", '"b c.mp4"', " '#d.mp4' ", "e.mp4 ", "   ", ""]
    (tmp_path / "list.txt").write_bytes((mark + end.join(lines)).encode())
    assert names(find_sources(tmp_path / "list.txt")) == wanted


@pytest.mark.parametrize("name", [" a.mp4", "'a.mp4", '"a".mp4', "~a.mp4", "a\u2028b.mp4", "a\x0cb.mp4"])
def test_a_name_that_is_odd_is_taken_to_the_letter(tmp_path, name):
    make(tmp_path, name)
    (tmp_path / "list.txt").write_bytes(f"{name}\n".encode())
    assert [source.paths[0] for source in find_sources(tmp_path / "list.txt").items] == [tmp_path / name]


def test_the_home_folder_is_known_in_lists(tmp_path, monkeypatch):
    make(tmp_path / "home", "day/a.mp4")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "list.txt").write_text("~/day/a.mp4\n")
    (found,) = find_sources(tmp_path / "list.txt").items
    assert (found.paths[0], found.name) == (tmp_path / "home/day/a.mp4", "a.mp4")


def test_a_missing_file_in_quotes_is_named_without_them(tmp_path):
    (tmp_path / "list.txt").write_text('\n"gone.mp4"\n')
    with pytest.raises(FileNotFoundError, match=r"list.txt, line 2: there is no file .*/gone.mp4"):
        find_sources(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("files", "kinds", "said"),
    [
        ((), ("image", "video"), ""),
        (("a.vob", "b.vob", "notes.txt"), ("image", "video"), "left out 3 files (2 .vob, 1 .txt)"),
        (("a.png", "README"), ("video",), "left out 2 files (1 .png, 1 without extension)"),
        (
            tuple(f"{n}.x{n}" for n in range(8)),
            ("video",),
            "left out 8 files (1 .x0, 1 .x1, 1 .x2, 1 .x3, 1 .x4, 1 .x5, ...)",
        ),
    ],
)
def test_what_is_left_out_of_a_folder_is_said_by_extension(tmp_path, files, kinds, said):
    make(tmp_path, "clip.mp4", *files)
    assert str(find_sources(tmp_path, kinds=kinds).left_out) == said
