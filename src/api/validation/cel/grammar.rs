//! The grammar of CEL, walked once: what stands where, and what every name means.
//!
//! Binary operators are not told apart by precedence, as any of them may follow
//! any operand; only the depths that cel-go counts depend on it.

use super::names::{self, Comprehension, Meaning, Plain};
use super::tokens::{Magnitude, Token, Tokens};
use super::{CelProblem, excerpt};

/// cel-go refuses to nest any of its rules deeper, and counts each member of
/// `a.b.c` and each operator of `a + b + c` as one level more.
const DEEPEST: usize = 250;

/// What is wrong, and at which byte.
type Found = (CelProblem, usize);

/// What an operand is, for those who ask for a part of it.
#[derive(Clone, Copy)]
enum Operand<'e> {
    /// `x.field`, which `has` can be asked about.
    Field,
    /// A variable of a type without fields.
    Plain(Plain),
    /// A name that is no variable, and what followed it with dots between.
    Qualified(Qualified<'e>),
    /// Anything else.
    Value,
}

/// Perhaps the name of a type.
#[derive(Clone, Copy)]
struct Qualified<'e> {
    first: &'e str,
    /// Where it starts.
    at: usize,
    parts: usize,
    /// Whether it is `google.protobuf` so far. All types that cel-go knows by
    /// such a name are there; which they are is left to it, as types are.
    well_known: bool,
}

impl<'e> Qualified<'e> {
    fn new(first: &'e str, at: usize) -> Self {
        Self { first, at, parts: 1, well_known: first == "google" }
    }

    fn with(self, part: &str) -> Self {
        let well_known = self.well_known && (self.parts > 1 || part == "protobuf");
        Self { parts: self.parts + 1, well_known, ..self }
    }

    fn is_type(self) -> bool {
        self.well_known && self.parts > 2
    }
}

/// Refuses a name that stands for nothing.
fn resolved(operand: Operand<'_>) -> Result<(), Found> {
    match operand {
        Operand::Qualified(name) if !name.is_type() => {
            Err((CelProblem::UnknownVariable(excerpt(name.first)), name.at))
        }
        _ => Ok(()),
    }
}

/// Refuses to ask for a part of what has none.
fn has_parts(operand: Operand<'_>, at: usize) -> Result<(), Found> {
    match operand {
        Operand::Plain(Plain { name, kind }) => Err((CelProblem::NoFields { name, kind }, at)),
        _ => Ok(()),
    }
}

/// Checks a whole expression.
pub(super) fn check(text: &str) -> Result<(), Found> {
    let mut tokens = Tokens::new(text);
    let (token, at) = tokens.next()?;
    if token == Token::End {
        return Err((CelProblem::Empty, 0));
    }
    let mut grammar =
        Grammar { tokens, token, at, elements: Vec::new(), depth: 0, members: 0, relations: 0, sums: 0 };
    grammar.expression()?;
    grammar.expect_end()
}

struct Grammar<'e> {
    /// What follows `token`.
    tokens: Tokens<'e>,
    /// The word that is looked at.
    token: Token<'e>,
    /// Where it starts.
    at: usize,
    /// Names that the surrounding comprehensions give their elements.
    elements: Vec<&'e str>,
    /// Levels of expressions around this place.
    depth: usize,
    /// Levels of members around this place, beyond those of expressions.
    members: usize,
    /// The same for comparisons.
    relations: usize,
    /// The same for arithmetic.
    sums: usize,
}

impl<'e> Grammar<'e> {
    fn advance(&mut self) -> Result<(), Found> {
        (self.token, self.at) = self.tokens.next()?;
        Ok(())
    }

    /// The word after the one that is looked at.
    fn following(&self) -> Option<Token<'e>> {
        let mut ahead = self.tokens;
        ahead.next().ok().map(|(token, _)| token)
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    /// Goes past a sign, if it stands here.
    fn take(&mut self, sign: &str) -> Result<bool, Found> {
        let here = self.is(sign);
        if here {
            self.advance()?;
        }
        Ok(here)
    }

    fn expect(&mut self, sign: &str) -> Result<(), Found> {
        if self.take(sign)? { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_end(&self) -> Result<(), Found> {
        if self.token == Token::End { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Found {
        let problem = match self.token {
            Token::End => CelProblem::EndsEarly,
            Token::Name(name) => CelProblem::Unexpected(excerpt(name)),
            Token::Sign(sign) => CelProblem::Unexpected(sign.to_owned()),
            Token::QuotedName => CelProblem::Unexpected("`…`".to_owned()),
            Token::Int(_) | Token::Double => CelProblem::Unexpected("number".to_owned()),
            Token::Literal => CelProblem::Unexpected("literal".to_owned()),
        };
        (problem, self.at)
    }

    fn expression(&mut self) -> Result<Operand<'e>, Found> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err((CelProblem::TooDeep, self.at));
        }
        let mut operand = self.chain()?;
        if self.take("?")? {
            operand = Operand::Value;
            self.chain()?;
            self.expect(":")?;
            self.expression()?;
        }
        self.depth -= 1;
        Ok(operand)
    }

    /// Operands with operators between them.
    fn chain(&mut self) -> Result<Operand<'e>, Found> {
        let (relations, sums) = (self.relations, self.sums);
        let mut products = 0;
        let mut operand = self.unary()?;
        loop {
            match self.token {
                Token::Sign("&&" | "||") => {
                    (self.relations, self.sums, products) = (relations, sums, 0);
                }
                Token::Sign("<" | "<=" | ">=" | ">" | "==" | "!=") | Token::Name("in") => {
                    (self.relations, self.sums, products) = (self.relations + 1, sums, 0);
                }
                Token::Sign("+" | "-") => (self.sums, products) = (self.sums + 1, 0),
                Token::Sign("*" | "/" | "%") => products += 1,
                _ => break,
            }
            if self.depth + self.relations > DEEPEST || self.depth + self.sums + products > DEEPEST {
                return Err((CelProblem::TooDeep, self.at));
            }
            self.advance()?;
            self.unary()?;
            operand = Operand::Value;
        }
        (self.relations, self.sums) = (relations, sums);
        Ok(operand)
    }

    /// A member with `!` or `-` before it, of one kind only and as many as you like.
    fn unary(&mut self) -> Result<Operand<'e>, Found> {
        for sign in ["!", "-"] {
            let mut signs = 0;
            while self.take(sign)? {
                signs += 1;
            }
            if signs > 0 {
                self.member(sign == "-" && signs == 1)?;
                return Ok(Operand::Value);
            }
        }
        self.member(false)
    }

    /// Something and what is asked of it: fields, calls and elements.
    fn member(&mut self, negated: bool) -> Result<Operand<'e>, Found> {
        let members = self.members;
        let mut operand = self.primary(negated)?;
        loop {
            let asked = self.at;
            if self.is("{")
                && let Operand::Qualified(name) = operand
            {
                if !name.is_type() {
                    return Err((CelProblem::UnknownMessage(excerpt(name.first)), name.at));
                }
                self.message()?;
                operand = Operand::Value;
                continue;
            }
            if !self.is(".") && !self.is("[") {
                break;
            }
            self.members += 1;
            if self.depth + self.members > DEEPEST {
                return Err((CelProblem::TooDeep, asked));
            }
            operand = if self.take("[")? {
                self.not_optional("[?")?;
                resolved(operand)?;
                has_parts(operand, asked)?;
                self.expression()?;
                self.expect("]")?;
                Operand::Value
            } else {
                self.advance()?;
                self.not_optional(".?")?;
                self.selection(operand, asked)?
            };
        }
        self.members = members;
        resolved(operand)?;
        Ok(operand)
    }

    /// What follows the dot.
    fn selection(&mut self, operand: Operand<'e>, asked: usize) -> Result<Operand<'e>, Found> {
        let Token::Name(name) = self.token else {
            return Err(match self.token {
                Token::QuotedName => (CelProblem::Unsupported("backquotes"), self.at),
                _ => self.unexpected(),
            });
        };
        if names::is_keyword(name) {
            return Err(self.unexpected());
        }
        let at = self.at;
        self.advance()?;
        if !self.is("(") {
            has_parts(operand, asked)?;
            return Ok(match operand {
                Operand::Qualified(before) => Operand::Qualified(before.with(name)),
                _ => Operand::Field,
            });
        }
        resolved(operand)?;
        if let Some(macro_) = names::comprehension(name) {
            has_parts(operand, asked)?;
            self.comprehension(macro_, at)?;
            return Ok(Operand::Value);
        }
        self.advance()?;
        let given = self.arguments()?;
        let function = names::called(name).ok_or_else(|| (CelProblem::UnknownFunction(excerpt(name)), at))?;
        if !function.on_value.contains(&given) {
            return Err((
                CelProblem::WrongCall { called: format!(".{name}"), given, usage: function.usage },
                at,
            ));
        }
        Ok(Operand::Value)
    }

    /// A macro's arguments, from the opening bracket on.
    fn comprehension(&mut self, macro_: Comprehension, at: usize) -> Result<(), Found> {
        self.advance()?;
        if self.is(")") {
            let called = format!(".{}", macro_.name);
            return Err((CelProblem::WrongCall { called, given: 0, usage: macro_.usage }, at));
        }
        let no_name = (CelProblem::NoElementName(macro_.name), self.at);
        let Token::Name(element) = self.token else { return Err(no_name) };
        if names::is_keyword(element) || self.following() != Some(Token::Sign(",")) {
            return Err(no_name);
        }
        if names::is_reserved(element) {
            return Err((CelProblem::Reserved(element.to_owned()), self.at));
        }
        self.advance()?;
        self.advance()?;
        self.elements.push(element);
        let given = 1 + self.arguments()?;
        self.elements.pop();
        if macro_.arguments.contains(&given) {
            return Ok(());
        }
        let called = format!(".{}", macro_.name);
        Err((CelProblem::WrongCall { called, given, usage: macro_.usage }, at))
    }

    /// Arguments up to the closing bracket; how many they are.
    fn arguments(&mut self) -> Result<usize, Found> {
        let mut given = 0;
        if self.take(")")? {
            return Ok(given);
        }
        loop {
            self.expression()?;
            given += 1;
            if !self.take(",")? {
                self.expect(")")?;
                return Ok(given);
            }
        }
    }

    fn primary(&mut self, negated: bool) -> Result<Operand<'e>, Found> {
        match self.token {
            Token::Name("true" | "false" | "null") | Token::Literal | Token::Double => self.advance()?,
            Token::Int(magnitude) => self.integer(magnitude, negated)?,
            // After `!` a sign belongs to the number.
            Token::Sign("-") if matches!(self.following(), Some(Token::Int(_) | Token::Double)) => {
                self.advance()?;
                return self.primary(true);
            }
            Token::Sign("(") => {
                self.advance()?;
                let operand = self.expression()?;
                self.expect(")")?;
                return Ok(operand);
            }
            Token::Sign("[") => {
                self.advance()?;
                self.elements_of_list()?;
            }
            Token::Sign("{") => {
                self.advance()?;
                self.entries(|grammar| {
                    grammar.not_optional("?")?;
                    grammar.expression().map(|_| ())
                })?;
            }
            Token::Sign(".") => {
                self.advance()?;
                return self.name();
            }
            _ => return self.name(),
        }
        Ok(Operand::Value)
    }

    fn integer(&mut self, magnitude: Magnitude, negated: bool) -> Result<(), Found> {
        let at = self.at;
        self.advance()?;
        match (magnitude, negated) {
            (Magnitude::Fits, _) | (Magnitude::FitsNegated, true) => Ok(()),
            _ => Err((CelProblem::NumberTooLarge(excerpt(self.tokens.word_at(at))), at)),
        }
    }

    fn elements_of_list(&mut self) -> Result<(), Found> {
        while !self.is("]") {
            self.not_optional("?")?;
            self.expression()?;
            if !self.take(",")? {
                break;
            }
        }
        self.expect("]")
    }

    /// Keys and values up to the closing brace.
    fn entries(&mut self, key: fn(&mut Self) -> Result<(), Found>) -> Result<(), Found> {
        while !self.is("}") {
            key(self)?;
            self.expect(":")?;
            self.expression()?;
            if !self.take(",")? {
                break;
            }
        }
        self.expect("}")
    }

    /// The fields of a message, from the opening brace on.
    fn message(&mut self) -> Result<(), Found> {
        self.advance()?;
        self.entries(|grammar| {
            grammar.not_optional("?")?;
            match grammar.token {
                Token::Name(name) if !names::is_keyword(name) => grammar.advance(),
                _ => Err(grammar.unexpected()),
            }
        })
    }

    /// A variable, or a call of a function.
    fn name(&mut self) -> Result<Operand<'e>, Found> {
        let at = self.at;
        let name = match self.token {
            Token::Name(name) if !names::is_keyword(name) => name,
            Token::QuotedName => return Err((CelProblem::Unsupported("backquotes"), at)),
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        if names::is_reserved(name) {
            return Err((CelProblem::Reserved(name.to_owned()), at));
        }
        if self.take("(")? {
            return self.call(name, at);
        }
        if self.elements.contains(&name) {
            return Ok(Operand::Value);
        }
        match names::variable(name) {
            Some(Meaning::Plain(plain)) => Ok(Operand::Plain(plain)),
            Some(Meaning::Open) => Ok(Operand::Value),
            None => Ok(Operand::Qualified(Qualified::new(name, at))),
        }
    }

    /// A call on nothing, after the opening bracket.
    fn call(&mut self, name: &'e str, at: usize) -> Result<Operand<'e>, Found> {
        if name == "has" && !self.is(")") {
            let asked = self.at;
            let operand = self.expression()?;
            if self.take(")")? {
                return match operand {
                    Operand::Field => Ok(Operand::Value),
                    _ => Err((CelProblem::HasOfNoField, asked)),
                };
            }
            self.expect(",")?;
            let given = 1 + self.arguments()?;
            return Err((wrong_call(name, given), at));
        }
        let given = self.arguments()?;
        match names::called(name) {
            Some(function) if function.alone.contains(&given) => Ok(Operand::Value),
            _ => Err((wrong_call(name, given), at)),
        }
    }

    fn not_optional(&self, syntax: &'static str) -> Result<(), Found> {
        if self.is("?") { Err((CelProblem::Unsupported(syntax), self.at)) } else { Ok(()) }
    }
}

fn wrong_call(name: &str, given: usize) -> CelProblem {
    let usage = names::called(name)
        .map(|function| function.usage)
        .or_else(|| names::comprehension(name).map(|macro_| macro_.usage));
    match usage {
        Some(usage) => CelProblem::WrongCall { called: name.to_owned(), given, usage },
        None => CelProblem::UnknownFunction(excerpt(name)),
    }
}
