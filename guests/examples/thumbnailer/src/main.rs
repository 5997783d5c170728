//! A job that makes a thumbnail of each picture: a JPEG of at most 160 pixels on the longer side.
//!
//! The output of an item is text, of which 64 KiB are kept: the thumbnail is told in base64, and is always small enough.

mod picture;

use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_guest::{Context, Item, Result, bail, ensure};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, Rgb, RgbImage, Rgba};

/// The most pixels on the longer side of a thumbnail.
const LONGER: u32 = 160;

/// How well it is kept, of 100: as the first says, unless that does not fit. Even noise does, so the others are for
/// pictures that somebody has thought out.
const QUALITIES: [u8; 3] = [75, 40, 10];

/// The most bytes of an output, of which the line's end is one. What is longer would lose its end.
const OUTPUT: usize = (64 << 10) - 1;

/// The most bytes of a picture that comes in.
const INPUT: u64 = 32 << 20;

/// Makes the thumbnail of one picture.
#[dunlin_guest::job]
fn thumbnail(mut item: Item) -> Result<String> {
    let name = item.name().to_owned();
    let mut bytes = Vec::new();
    // One byte more shows that there are more.
    item.by_ref().take(INPUT + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read `{name}`"))?;
    thumbnail_of(&bytes).with_context(|| format!("cannot make a thumbnail of `{name}`"))
}

fn thumbnail_of(bytes: &[u8]) -> Result<String> {
    ensure!(bytes.len() as u64 <= INPUT, "it has more than {INPUT} bytes");
    let (mut picture, orientation) = picture::decode(bytes)?;
    // One that is small is not made larger.
    if picture.width().max(picture.height()) > LONGER {
        picture = picture.thumbnail(LONGER, LONGER);
    }
    picture.apply_orientation(orientation);
    let picture = on_white(&picture);
    for quality in QUALITIES {
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality).encode_image(&picture)?;
        let text = BASE64_STANDARD.encode(jpeg);
        if text.len() <= OUTPUT {
            return Ok(text);
        }
    }
    bail!("its thumbnail does not fit into {OUTPUT} bytes")
}

/// Lays a picture on white, as a JPEG has no transparent parts.
fn on_white(picture: &DynamicImage) -> RgbImage {
    let picture = picture.to_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let Rgba([red, green, blue, alpha]) = *picture.get_pixel(x, y);
        Rgb([red, green, blue].map(|light| mixed(light, alpha)))
    })
}

/// Returns what is seen of a light before white, if so much of 255 does not come through it.
fn mixed(light: u8, alpha: u8) -> u8 {
    let (light, alpha) = (u32::from(light), u32::from(alpha));
    u8::try_from((light * alpha + 255 * (255 - alpha)) / 255).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use dunlin_guest::test;
    use image::ImageFormat;

    use super::*;

    fn made(name: &str, bytes: &[u8]) -> RgbImage {
        let text = thumbnail(test::item(name, bytes)).unwrap();
        let jpeg = BASE64_STANDARD.decode(&text).unwrap();
        assert_eq!(image::guess_format(&jpeg).unwrap(), ImageFormat::Jpeg);
        image::load_from_memory(&jpeg).unwrap().to_rgb8()
    }

    fn png(picture: &RgbImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_longer_side_is_160_pixels_long() {
        let lighthouse = made("lighthouse.jpg", include_bytes!("../pictures/lighthouse.jpg"));
        assert_eq!(lighthouse.dimensions(), (160, 100));
        let tree = made("tree.jpg", include_bytes!("../pictures/tree.jpg"));
        assert_eq!(tree.dimensions(), (114, 160));
        let line = made("line.png", &png(&RgbImage::new(4000, 1)));
        assert_eq!(line.dimensions(), (160, 1));
        let dot = made("dot.png", &png(&RgbImage::new(2, 3)));
        assert_eq!(dot.dimensions(), (2, 3));
    }

    #[test]
    fn what_is_transparent_is_white() {
        let mark = made("mark.png", include_bytes!("../pictures/mark.png"));
        let Rgb(corner) = *mark.get_pixel(1, 1);
        assert!(corner.iter().all(|light| *light > 250), "{corner:?}");
        let Rgb([red, _, blue]) = *mark.get_pixel(20, 80);
        assert!(blue > red + 50, "the ring is blue: {red} {blue}");
        assert_eq!([mixed(7, 255), mixed(7, 0), mixed(0, 128)], [7, 255, 127]);
    }

    #[test]
    fn noise_fits_into_an_output() {
        let mut random = 1_u32;
        let noise = RgbImage::from_fn(LONGER, LONGER, |_, _| {
            Rgb([0; 3].map(|_: u8| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if random >> 31 == 0 { 0 } else { 255 }
            }))
        });
        let text = thumbnail(test::item("noise.png", png(&noise))).unwrap();
        assert!(text.len() < 60 << 10, "{}", text.len());
    }

    #[test]
    fn an_error_names_the_picture() {
        let error = thumbnail(test::item("half.jpg", include_bytes!("../damaged/half.jpg"))).unwrap_err();
        assert_eq!(format!("{error:#}"), "cannot make a thumbnail of `half.jpg`: the JPEG is cut off");
    }
}
