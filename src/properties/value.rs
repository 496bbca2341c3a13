//! The values of properties on the wire (MQTT 5, section 1.5).

use super::{CUT_OFF, MAX_VARIABLE, PropertyFault, fault, forbidden};
use crate::reason::Reason;
use crate::topic::MAX_TEXT;

/// What a property's value looks like on the wire, and how it is read and written.
pub(super) trait Value<'a>: Sized {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault>;
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault>;
}

impl<'a> Value<'a> for u8 {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        bytes
            .split_first()
            .map(|(byte, rest)| (*byte, rest))
            .ok_or(CUT_OFF)
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        out.push(*self);
        Ok(())
    }
}

impl<'a> Value<'a> for bool {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        match u8::read(bytes)? {
            (0, rest) => Ok((false, rest)),
            (1, rest) => Ok((true, rest)),
            (_, _) => Err(forbidden(
                "MQTT5 2.2.2.2",
                "a property is neither 0 nor 1",
                Reason::PROTOCOL_ERROR,
            )),
        }
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        u8::from(*self).write(out)
    }
}

impl<'a> Value<'a> for u16 {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        let (value, rest) = bytes.split_first_chunk().ok_or(CUT_OFF)?;
        Ok((Self::from_be_bytes(*value), rest))
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        out.extend_from_slice(&self.to_be_bytes());
        Ok(())
    }
}

impl<'a> Value<'a> for u32 {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        let (value, rest) = bytes.split_first_chunk().ok_or(CUT_OFF)?;
        Ok((Self::from_be_bytes(*value), rest))
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        out.extend_from_slice(&self.to_be_bytes());
        Ok(())
    }
}

/// A variable byte integer: one to four bytes, seven bits each, the lowest first.
pub(super) struct Variable(pub(super) u32);

impl<'a> Value<'a> for Variable {
    fn read(mut bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let (byte, rest) = u8::read(bytes)?;
            bytes = rest;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(fault("MQTT-1.5.5-1", "an integer is longer than necessary"));
                }
                return Ok((Self(value), bytes));
            }
        }
        Err(fault(
            "MQTT5 1.5.5",
            "an integer takes more than four bytes",
        ))
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        let mut value = self.0;
        if value > MAX_VARIABLE {
            return Err(fault("MQTT5 1.5.5", "an integer is above 268,435,455"));
        }
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        Ok(())
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        let (length, rest) = u16::read(bytes)?;
        rest.split_at_checked(usize::from(length)).ok_or(CUT_OFF)
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        let length = u16::try_from(self.len())
            .map_err(|_| fault("MQTT5 1.5.6", "a property is longer than 65535 bytes"))?;
        length.write(out)?;
        out.extend_from_slice(self);
        Ok(())
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        let (text, rest) = <&[u8]>::read(bytes)?;
        let text = std::str::from_utf8(text)
            .map_err(|_| fault("MQTT-1.5.4-1", "a property's text is not UTF-8"))?;
        check_text(text)?;
        Ok((text, rest))
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        check_text(self)?;
        self.as_bytes().write(out)
    }
}

fn check_text(text: &str) -> Result<(), PropertyFault> {
    if text.len() > MAX_TEXT {
        return Err(fault(
            "MQTT5 1.5.4",
            "a property's text is longer than 65535 bytes",
        ));
    }
    if text.bytes().any(|byte| byte == 0) {
        return Err(fault("MQTT-1.5.4-2", "a property's text holds U+0000"));
    }
    Ok(())
}

/// A user property: a name and a value.
pub(super) type Pair<'a> = (&'a str, &'a str);

impl<'a> Value<'a> for Pair<'a> {
    fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), PropertyFault> {
        let (name, rest) = <&str>::read(bytes)?;
        let (value, rest) = <&str>::read(rest)?;
        Ok(((name, value), rest))
    }
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PropertyFault> {
        self.0.write(out)?;
        self.1.write(out)
    }
}
