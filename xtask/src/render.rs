//! Digits on a terminal and in an animated PNG.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use crate::Result;

/// Images of one state of a run, in [-1, 1], row-major `[n, height, width]`.
pub(crate) struct Digits {
    pub pixels: Vec<f32>,
    pub labels: Vec<i64>,
    pub height: usize,
    pub width: usize,
}

impl Digits {
    /// Brightness 0..=255 of a pixel of image `i`; black outside the images.
    fn level(&self, i: usize, y: usize, x: usize) -> u8 {
        if i >= self.labels.len() || y >= self.height || x >= self.width {
            return 0;
        }
        let value = self.pixels[(i * self.height + y) * self.width + x];
        ((value + 1.0) * 127.5).clamp(0.0, 255.0) as u8
    }
}

/// Two pixels a character, as grey escape codes; whole rows of digits that fit the terminal.
pub(crate) fn half_blocks(d: &Digits, columns: usize, lines: usize) -> String {
    let across = (columns / (d.width + 1)).clamp(1, 16);
    let band = d.height.div_ceil(2) + 1;
    let down = d.labels.len().div_ceil(across).min((lines / band).max(1));
    let mut text = String::new();
    for row in 0..down {
        for y in (0..d.height).step_by(2) {
            for i in row * across..((row + 1) * across).min(d.labels.len()) {
                for x in 0..d.width {
                    let (top, low) = (grey(d.level(i, y, x)), grey(d.level(i, y + 1, x)));
                    let _ = write!(text, "\x1b[38;5;{top};48;5;{low}m\u{2580}");
                }
                text.push_str("\x1b[0m ");
            }
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[K\n");
    }
    text
}

/// Index into the 24 greys of a 256-colour terminal.
fn grey(level: u8) -> u8 {
    232 + (u16::from(level) * 23 / 255) as u8
}

/// One character a pixel, no escape codes.
pub(crate) fn plain(d: &Digits, columns: usize) -> String {
    const RAMP: &[u8; 10] = b" .:-=+*#%@";
    let across = (columns / (d.width + 1)).max(1);
    let mut text = String::new();
    for first in (0..d.labels.len()).step_by(across) {
        for y in 0..d.height {
            for i in first..(first + across).min(d.labels.len()) {
                for x in 0..d.width {
                    text.push(RAMP[usize::from(d.level(i, y, x)) * 9 / 255] as char);
                }
                text.push(' ');
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

const ZOOM: usize = 6;
const GAP: usize = 6;
/// Height of the strip with the class number above each digit.
const STRIP: usize = 14;
/// Grey of the page and of the class numbers.
const PAGE: u8 = 24;
const INK: u8 = 150;

/// Writes the frames as an animated PNG of a labelled grid; viewers without animation show
/// the last frame, which is also the poster.
pub(crate) fn write_animation(path: &Path, frames: &[Digits]) -> Result<()> {
    let Some(last) = frames.last() else { return Err("no frame to write".into()) };
    let across = (last.labels.len() as f64).sqrt().ceil() as usize;
    let down = last.labels.len().div_ceil(across);
    let (cell_w, cell_h) = (last.width * ZOOM + GAP, last.height * ZOOM + STRIP + GAP);
    let (width, height) = (across * cell_w + GAP, down * cell_h + GAP);

    let temporary = path.with_extension("png.part");
    let mut encoder =
        png::Encoder::new(BufWriter::new(File::create(&temporary)?), width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_animated(frames.len() as u32, 0)?;
    // The default image comes first and is not part of the animation.
    encoder.set_sep_def_img(true)?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&page(last, across, width, height))?;
    for (i, frame) in frames.iter().enumerate() {
        let pause = if i + 1 == frames.len() { 2500 } else { 130 };
        writer.set_frame_delay(pause, 1000)?;
        writer.write_image_data(&page(frame, across, width, height))?;
    }
    writer.finish()?;
    fs::rename(&temporary, path)?;
    Ok(())
}

fn page(d: &Digits, across: usize, width: usize, height: usize) -> Vec<u8> {
    let mut page = vec![PAGE; width * height];
    let (cell_w, cell_h) = (d.width * ZOOM + GAP, d.height * ZOOM + STRIP + GAP);
    for (i, &label) in d.labels.iter().enumerate() {
        let (left, top) = (GAP + i % across * cell_w, GAP + i / across * cell_h);
        for (n, character) in label.to_string().bytes().enumerate() {
            glyph(&mut page, width, left + n * 8, top, character);
        }
        for y in 0..d.height * ZOOM {
            let row = (top + STRIP + y) * width + left;
            for x in 0..d.width * ZOOM {
                page[row + x] = d.level(i, y / ZOOM, x / ZOOM);
            }
        }
    }
    page
}

/// Draws a digit in a 3x5 face at double size; other characters are skipped.
fn glyph(page: &mut [u8], width: usize, left: usize, top: usize, character: u8) {
    const FACE: [[u8; 5]; 10] = [
        [7, 5, 5, 5, 7],
        [2, 6, 2, 2, 7],
        [7, 1, 7, 4, 7],
        [7, 1, 7, 1, 7],
        [5, 5, 7, 1, 1],
        [7, 4, 7, 1, 7],
        [7, 4, 7, 5, 7],
        [7, 1, 2, 2, 2],
        [7, 5, 7, 5, 7],
        [7, 5, 7, 1, 7],
    ];
    let Some(rows) = FACE.get(usize::from(character.wrapping_sub(b'0'))) else { return };
    for y in 0..10 {
        for x in 0..6 {
            if rows[y / 2] >> (2 - x / 2) & 1 == 1 {
                page[(top + y) * width + left + x] = INK;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Digits {
        Digits {
            pixels: vec![-1.0, 1.0, 0.0, 2.0, 1.0, 1.0, -3.0, 1.0],
            labels: vec![3, 10],
            height: 2,
            width: 2,
        }
    }

    #[test]
    fn plain_text_has_no_escape_codes() {
        assert_eq!(plain(&two(), 80), " @ @@\n=@  @\n\n");
        assert!(!plain(&two(), 80).contains('\x1b'));
    }

    #[test]
    fn half_blocks_fit_the_terminal() {
        let text = half_blocks(&two(), 3, 10);
        assert_eq!(text.lines().count(), 4, "one digit across, two bands of one line and a gap");
    }

    #[test]
    fn animation_is_a_png_with_every_frame() {
        let path = std::env::temp_dir().join(format!("dgm-render-{}.png", std::process::id()));
        write_animation(&path, &[two(), two(), two()]).unwrap();
        let mut reader =
            png::Decoder::new(std::io::BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
        assert_eq!(reader.info().animation_control().unwrap().num_frames, 3);
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut buffer).unwrap();
        assert!(buffer.contains(&INK) && buffer.contains(&255));
        fs::remove_file(path).unwrap();
    }
}
