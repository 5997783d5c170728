//! A picture as it comes in: what it is, how large, and whether all of it is there, asked before it is decoded.
//!
//! A picture of a few bytes can say that it is of millions of pixels. Its head alone is read first, and what is too large
//! is refused with a message, where it would else end the instance for want of memory.

use std::io::Cursor;

use dunlin_guest::{Context, Result, bail, ensure};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

/// The most pixels on one side.
const SIDE: u32 = 16_384;

/// The most bytes of a picture that is decoded: of 16 million pixels with three bytes each.
///
/// A progressive JPEG needs twice as much besides, which must find room in `limits.memory`.
const DECODED: u64 = 48 << 20;

/// Decodes a picture, and returns it with the way up that its camera says: a small one is turned more quickly.
///
/// # Errors
///
/// If it is too large, damaged, or of another kind than PNG and JPEG.
pub(crate) fn decode(bytes: &[u8]) -> Result<(DynamicImage, Orientation)> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    match reader.format() {
        Some(ImageFormat::Png) => {}
        Some(ImageFormat::Jpeg) => ensure!(has_end(bytes), "the JPEG is cut off"),
        Some(other) => bail!("{other:?} is not known here, only PNG and JPEG"),
        None => bail!("it is neither PNG nor JPEG"),
    }
    let mut decoder = reader.into_decoder().context("its head cannot be read")?;
    let ((width, height), size) = (decoder.dimensions(), decoder.total_bytes());
    ensure!(
        width.max(height) <= SIDE && size <= DECODED,
        "{width} x {height} pixels are {size} bytes; {SIDE} on a side and {DECODED} bytes are the most"
    );
    // What a camera says there is of no use if it cannot be read, and no reason to show nothing.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    Ok((DynamicImage::from_decoder(decoder).context("it is damaged")?, orientation))
}

/// Tells whether a JPEG has the mark of its end. The decoder takes one without, and paints grey what is missing.
///
/// The same two bytes may be in the segments before, as of a small picture that the camera puts there; those have their
/// lengths. In what follows them they cannot be.
fn has_end(jpeg: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END: [u8; 2] = [0xff, 0xd9];
    let mut rest = jpeg.get(2..).unwrap_or_default();
    while let [0xff, kind, tail @ ..] = rest {
        rest = match (kind, tail) {
            // A mark may have any number of these before it.
            (0xff, _) => &rest[1..],
            (&START_OF_SCAN, _) => return tail.windows(2).any(|two| two == END),
            (_, [high, low, ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                tail.get(length..).unwrap_or_default()
            }
            (_, _) => return false,
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIGHTHOUSE: &[u8] = include_bytes!("../pictures/lighthouse.jpg");
    const TREE: &[u8] = include_bytes!("../pictures/tree.jpg");
    const MARK: &[u8] = include_bytes!("../pictures/mark.png");

    fn refused(bytes: &[u8]) -> String {
        format!("{:#}", decode(bytes).unwrap_err())
    }

    #[test]
    fn a_picture_is_decoded_and_its_camera_heard() {
        let told = |bytes| {
            let (picture, orientation) = decode(bytes).unwrap();
            (picture.width(), picture.height(), orientation)
        };
        assert_eq!(told(LIGHTHOUSE), (640, 400, Orientation::NoTransforms));
        assert_eq!(told(TREE), (420, 300, Orientation::Rotate90));
        assert_eq!(told(MARK), (256, 256, Orientation::NoTransforms));
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_head() {
        assert_eq!(
            refused(include_bytes!("../damaged/huge.png")),
            "20000 x 20000 pixels are 1200000000 bytes; 16384 on a side and 50331648 bytes are the most"
        );
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        assert_eq!(refused(b""), "it is neither PNG nor JPEG");
        assert_eq!(refused(b"GIF89a"), "Gif is not known here, only PNG and JPEG");
        assert_eq!(refused(include_bytes!("../damaged/half.jpg")), "the JPEG is cut off");
    }

    #[test]
    fn a_picture_that_is_cut_off_anywhere_is_an_error() {
        for picture in [LIGHTHOUSE, TREE, MARK] {
            for length in (0..picture.len() - 12).step_by(251) {
                assert!(decode(&picture[..length]).is_err(), "{length} of {}", picture.len());
            }
        }
    }

    #[test]
    fn bytes_that_are_turned_over_end_nothing() {
        for picture in [LIGHTHOUSE, TREE, MARK] {
            for place in (0..picture.len()).step_by(509) {
                let mut damaged = picture.to_vec();
                damaged[place] ^= 0xff;
                // Some are taken, where what they say is a picture nevertheless.
                drop(decode(&damaged));
            }
        }
    }
}
