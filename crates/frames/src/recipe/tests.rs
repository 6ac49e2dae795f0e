//! What comes out of a chain, by header, and what is refused.

use super::*;

fn recipe(header: &str, chain: &str) -> Result<Recipe, TransformError> {
    Recipe::new(Header::parse(format!("YUV4MPEG2 {header}").as_bytes()).unwrap(), chain.parse().unwrap())
}

/// The header of the output, its first word left out.
fn output(header: &str, chain: &str) -> String {
    let line = recipe(header, chain).unwrap().output().to_line();
    String::from_utf8(line).unwrap().trim_start_matches("YUV4MPEG2 ").trim_end().to_owned()
}

fn refused(header: &str, chain: &str) -> String {
    recipe(header, chain).unwrap_err().to_string()
}

#[test]
fn a_whole_chain_is_followed() {
    assert_eq!(
        output(
            "W1920 H1080 F25:1 Ip A1:1 C420jpeg Xa",
            "crop=1440x1080+240+0,scale=320x240,gray,blur=2,rotate=90"
        ),
        "W240 H320 F25:1 Ip A1:1 C420jpeg Xa"
    );
}

#[test]
fn the_picture_keeps_its_shape_on_the_screen() {
    assert_eq!(output("W720 H576 A16:15", "scale=768x576"), "W768 H576 A1:1 C420jpeg");
    assert_eq!(output("W720 H576 A16:15", "rotate=270"), "W576 H720 A15:16 C420jpeg");
    assert_eq!(output("W720 H576 A16:15", "rotate=180"), "W720 H576 A16:15 C420jpeg");
    assert_eq!(output("W720 H576 A16:15", "crop=5x5+0+0"), "W5 H5 A16:15 C420jpeg");
    assert_eq!(output("W720 H576 A0:0", "scale=100x100"), "W100 H100 A0:0 C420jpeg");
    assert_eq!(output("W720 H576", "scale=100x100"), "W100 H100 C420jpeg");
    let unwieldy = "W16381 H1 A4294967291:1 C420jpeg";
    assert_eq!(output(unwieldy, "scale=1x16381"), "W1 H16381 A0:0 C420jpeg");
}

#[test]
fn a_turn_moves_chroma_only_where_it_must() {
    assert_eq!(output("W6 H4 C420mpeg2 XYSCSS=420MPEG2 XB", "rotate=90"), "W4 H6 C420jpeg XB");
    assert_eq!(output("W6 H4 C420mpeg2 XYSCSS=420MPEG2", "gray"), "W6 H4 C420mpeg2 XYSCSS=420MPEG2");
    assert_eq!(output("W6 H4 C422p10", "rotate=90"), "W4 H6 C422p10");
    let stages = |colour: &str, chain: &str| {
        let recipe = recipe(&format!("W6 H4 C{colour}"), chain).unwrap();
        (recipe.luma().len(), recipe.chroma().len())
    };
    assert_eq!(stages("420jpeg", "rotate=90"), (1, 1));
    assert_eq!(stages("422", "rotate=90"), (1, 2));
    assert_eq!(stages("422", "rotate=180"), (1, 1));
    assert_eq!(stages("422", "rotate=90,gray"), (1, 0));
    assert_eq!(stages("mono", "rotate=90"), (1, 0));
}

#[test]
fn mono_leaves_chroma_out_and_gray_keeps_the_colour_space() {
    assert_eq!(output("W5 H3 C422p10 XYSCSS=422P10", "mono"), "W5 H3 Cmono10");
    assert_eq!(output("W5 H3 C444", "gray"), "W5 H3 C444");
    assert_eq!(output("W5 H3 Cmono", "gray"), "W5 H3 Cmono");
    assert!(!recipe("W5 H3", "scale=3x3,gray").unwrap().needs_chroma());
    assert!(recipe("W5 H3", "scale=3x3").unwrap().needs_chroma());
}

#[test]
fn stages_fit_together_in_odd_sizes() {
    for colour in ["420jpeg", "422", "444", "420p10"] {
        let chain = "crop=13x9+2+2,rotate=90,scale=7x5,blur=3,rotate=270,rotate=180,crop=3x3+0+2";
        let recipe = recipe(&format!("W17 H11 C{colour}"), chain).unwrap();
        for (stages, first, last) in [
            (recipe.luma(), recipe.input().shape.size(), recipe.output().shape.size()),
            (recipe.chroma(), recipe.input().shape.chroma_size(), recipe.output().shape.chroma_size()),
        ] {
            assert_eq!((stages[0].from, stages[stages.len() - 1].to), (first, last), "{colour}");
            assert!(stages.windows(2).all(|pair| pair[0].to == pair[1].from), "{colour}");
        }
    }
}

#[test]
fn a_blur_reaches_as_far_in_chroma() {
    let radius = |colour: &str, blur: u32| {
        let recipe = recipe(&format!("W64 H64 C{colour}"), &format!("blur={blur}")).unwrap();
        match recipe.chroma()[0].step {
            PlaneOperation::Blur(radius) => (radius.across, radius.down),
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(radius("420jpeg", 1), (1, 1));
    assert_eq!(radius("420jpeg", 2), (1, 1));
    assert_eq!(radius("420jpeg", 5), (3, 3));
    assert_eq!(radius("422", 4), (2, 4));
    assert_eq!(radius("444", 3), (3, 3));
}

#[test]
fn a_crop_that_does_not_fit_is_refused() {
    for chain in ["crop=6x4+1+0", "crop=6x4+0+1", "crop=7x1+0+0", "crop=1x5+0+0", "crop=1x1+16383+0"] {
        let told = refused("W6 H4 C444", chain);
        assert_eq!(
            told,
            format!("operation {chain}: it reaches beyond the picture, which is 6x4 at that operation")
        );
    }
    let told = refused("W6 H4", "crop=2x2+1+0");
    assert_eq!(told, "operation crop=2x2+1+0: in 4:2:0 it can only begin at multiples of 2 (X) and 2 (Y)");
    assert!(refused("W6 H4 C422", "crop=2x2+1+1").ends_with("multiples of 2 (X) and 1 (Y)"));
    assert!(recipe("W6 H4 C422", "crop=1x1+4+3").is_ok());
    assert!(recipe("W6 H4 C444", "crop=1x1+5+3").is_ok());
}

#[test]
fn a_result_that_is_too_large_is_refused() {
    let told = refused("W4 H4 C444", "scale=16384x16384");
    assert_eq!(
        told,
        "operation scale=16384x16384:lanczos: a frame has 805306368 bytes, the limit is 402653184"
    );
}

#[test]
fn fields_are_not_mixed() {
    for interlacing in ["It", "Ib", "Im"] {
        let header = format!("W8 H8 {interlacing} C444");
        for chain in ["scale=8x4", "blur=1", "rotate=90", "rotate=180"] {
            assert!(refused(&header, chain).ends_with("deinterlace it first"), "{interlacing} {chain}");
        }
        assert_eq!(output(&header, "scale=4x8:bilinear,gray,mono"), format!("W4 H8 {interlacing} Cmono"));
        assert_eq!(output(&header, "crop=8x2+0+2"), format!("W8 H2 {interlacing} C444"));
    }
    assert_eq!(output("W8 H8 It C444", "crop=8x4+0+1"), "W8 H4 Ib C444");
    assert_eq!(output("W8 H8 Ib C422", "crop=8x4+0+3"), "W8 H4 It C422");
    assert!(refused("W8 H8 Im C444", "crop=8x4+0+1").ends_with("only begin at an even row"));
    assert!(refused("W8 H8 It C420jpeg", "crop=8x4+0+2").ends_with("multiples of 2 (X) and 4 (Y)"));
    assert!(recipe("W8 H8 I?", "scale=8x4").is_ok() && recipe("W8 H8 Ip", "blur=1").is_ok());
}
