//! Headers as they are written by programs, by hand, and by enemies.

use super::*;

const FULL: &str =
    "YUV4MPEG2 W176 H144 F30000:1001 Ip A128:117 C420mpeg2 XYSCSS=420MPEG2 XCOLORRANGE=LIMITED";

fn parse(line: &str) -> Header {
    Header::parse(line.as_bytes()).unwrap()
}

fn fault(line: &str) -> String {
    Header::parse(line.as_bytes()).unwrap_err().to_string()
}

#[test]
fn what_ffmpeg_writes_comes_out_as_it_went_in() {
    let header = parse(FULL);
    assert_eq!(header.shape.size(), Size::new(176, 144));
    assert_eq!(header.rate, Some(Ratio { over: 30_000, under: 1001 }));
    assert_eq!(header.interlacing, Some(Interlacing::Progressive));
    assert_eq!(header.aspect, Some(Ratio { over: 128, under: 117 }));
    assert_eq!(header.shape.colour().tag(), "420mpeg2");
    assert_eq!(header.comments, [b"YSCSS=420MPEG2".to_vec(), b"COLORRANGE=LIMITED".to_vec()]);
    assert_eq!(header.to_line(), format!("{FULL}\n").into_bytes());
}

#[test]
fn every_tag_in_every_value_survives() {
    for colour in Colour::tags().split(", ") {
        for (interlacing, _) in INTERLACINGS {
            let line = format!("YUV4MPEG2 W5 H3 F0:0 I{interlacing} A0:0 C{colour}");
            assert_eq!(parse(&line).to_line(), format!("{line}\n").into_bytes());
        }
    }
}

#[test]
fn order_and_blanks_do_not_matter_and_little_is_needed() {
    let header = parse("YUV4MPEG2  H3 C444  XA W5 X ");
    assert_eq!(header.to_line(), b"YUV4MPEG2 W5 H3 C444 XA X\n");
    assert_eq!(parse("YUV4MPEG2 W5 H3").to_line(), b"YUV4MPEG2 W5 H3 C420jpeg\n");
}

#[test]
fn a_comment_may_hold_any_bytes() {
    let header = Header::parse(b"YUV4MPEG2 W5 H3 X\xff\xfe").unwrap();
    assert_eq!(header.to_line(), b"YUV4MPEG2 W5 H3 C420jpeg X\xff\xfe\n");
}

#[test]
fn what_is_no_clip_is_told_from_the_first_byte() {
    for line in ["", "YUV4MPEG", "YUV4MPEG2W5 H3", "RIFF....", "yuv4mpeg2 W5 H3"] {
        assert!(fault(line).starts_with("clip at byte 0: it does not begin with"), "{}", fault(line));
    }
    assert_eq!(fault("YUV4MPEG2"), "clip at byte 0: the header gives no width");
    assert_eq!(fault("YUV4MPEG2 W5"), "clip at byte 0: the header gives no height");
}

#[test]
fn an_impossible_size_is_named_with_its_byte() {
    for value in ["0", "-1", "", "16385", "4294967297", "99999999999999999999", "1.5", "5x", "+5"] {
        let wanted = format!("clip at byte 10: width {value:?} is not valid; give 1 to 16384");
        assert_eq!(fault(&format!("YUV4MPEG2 W{value} H3")), wanted);
        let wanted = format!("clip at byte 13: height {value:?} is not valid; give 1 to 16384");
        assert_eq!(fault(&format!("YUV4MPEG2 W5 H{value}")), wanted);
    }
    let huge = fault("YUV4MPEG2 W16384 H16384 C444p10");
    assert_eq!(huge, "clip at byte 0: a frame has 1610612736 bytes, the limit is 402653184");
}

#[test]
fn every_other_bad_tag_is_named_with_its_byte() {
    for (tag, named) in [
        ("F25", "frame rate \"25\""),
        ("F25:0", "frame rate \"25:0\""),
        ("F:", "frame rate \":\""),
        ("A1:-1", "pixel aspect \"1:-1\""),
        ("Ix", "interlacing \"x\""),
        ("C411", "colour space \"411\""),
        ("C420p12", "colour space \"420p12\""),
        ("C444alpha", "colour space \"444alpha\""),
        ("W6", "gives the width twice"),
        ("Z9", "a tag \"Z9\""),
    ] {
        let told = fault(&format!("YUV4MPEG2 W5 H3 {tag} Ip"));
        assert!(told.starts_with("clip at byte 16: ") && told.contains(named), "{told}");
    }
    assert!(fault("YUV4MPEG2 W5 H3 C411").ends_with("444p10, mono10"));
}
