//! The grammar of CEL, walked once: what stands where, and what every name means.
//!
//! Any binary operator may follow any operand, so their precedence matters only
//! for the depths that cel-go counts.

use super::names::{self, Comprehension, Meaning, Plain};
use super::tokens::{Magnitude, Token, Tokens};
use super::{CelProblem, excerpt};

/// cel-go refuses brackets and conditions that nest deeper, and trees that are
/// higher: each member of `a.b.c` and each operator of `a + b + c` is one level.
const DEEPEST: usize = 250;

/// What is wrong, and at which byte. Boxed, as every level of nesting holds one
/// on the stack.
type Found = Box<(CelProblem, usize)>;

fn found(problem: CelProblem, at: usize) -> Found {
    Box::new((problem, at))
}

/// What an operand is, for those who ask for a part of it.
#[derive(Clone, Copy)]
enum Operand {
    /// `x.field`, which `has` can be asked about.
    Field,
    /// A variable of a type without fields.
    Plain(&'static Plain),
    /// A name that is no variable, and what followed it with dots between.
    Qualified(Qualified),
    /// Anything else.
    Value,
}

/// Perhaps the name of a type, such as `google.protobuf.Timestamp`.
#[derive(Clone, Copy)]
struct Qualified {
    /// Where it starts.
    at: usize,
    /// How many parts of a type's name it has, if it can still become one.
    known: Option<u8>,
}

impl Qualified {
    fn new(first: &str, at: usize) -> Self {
        Self { at, known: (first == "google").then_some(1) }
    }

    fn with(self, part: &str) -> Self {
        let fits = match self.known {
            Some(1) => part == "protobuf",
            Some(2) => names::is_well_known(part),
            _ => false,
        };
        Self { known: self.known.filter(|_| fits).map(|parts| parts + 1), ..self }
    }

    fn is_type(self) -> bool {
        self.known == Some(3)
    }
}

/// Refuses to ask for a part of what has none.
fn has_parts(operand: Operand, at: usize) -> Result<(), Found> {
    match operand {
        Operand::Plain(&Plain { name, kind }) => Err(found(CelProblem::NoFields { name, kind }, at)),
        _ => Ok(()),
    }
}

/// What was read, as far as those around it need to know.
#[derive(Clone, Copy)]
struct Tree {
    operand: Operand,
    /// How many levels cel-go descends in it.
    height: usize,
}

impl Tree {
    /// A level above this one and what stands beside it.
    fn under(self, beside: usize, at: usize) -> Result<Self, Found> {
        let height = self.height.max(beside) + 1;
        if height > DEEPEST {
            return Err(found(CelProblem::TooDeep, at));
        }
        Ok(Self { operand: Operand::Value, height })
    }
}

/// The left side of an operator of one level with its right side, if there is a left one.
fn joined(left: Option<Tree>, right: Tree, at: usize) -> Result<Tree, Found> {
    left.map_or(Ok(right), |left| left.under(right.height, at))
}

/// How tightly a binary operator binds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Product,
    Sum,
    Comparison,
    Logic,
}

/// Checks a whole expression.
pub(super) fn check(text: &str) -> Result<(), Found> {
    let mut tokens = Tokens::new(text);
    let (token, at) = tokens.next()?;
    if token == Token::End {
        return Err(found(CelProblem::Empty, 0));
    }
    let mut grammar = Grammar { tokens, token, at, elements: Vec::new(), depth: 0, sums: 0, comparisons: 0 };
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
    /// Operators of arithmetic on whose right side this place is.
    sums: usize,
    /// Comparisons on whose right side this place is.
    comparisons: usize,
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
        found(problem, self.at)
    }

    fn expression(&mut self) -> Result<Tree, Found> {
        let tree = self.nested()?;
        self.resolved(tree.operand)?;
        Ok(tree)
    }

    /// An expression that may still be the beginning of a type's name: brackets leave no
    /// trace in what cel-go builds, so `(google.protobuf).Any` is the name of a type.
    fn nested(&mut self) -> Result<Tree, Found> {
        self.depth += 1;
        self.check_depth()?;
        let mut tree = self.chain()?;
        let at = self.at;
        if self.is("?") {
            self.resolved(tree.operand)?;
            self.advance()?;
            let met = self.chain()?;
            self.resolved(met.operand)?;
            self.expect(":")?;
            let unmet = self.expression()?;
            tree = tree.under(met.height.max(unmet.height), at)?;
        }
        self.depth -= 1;
        Ok(tree)
    }

    /// cel-go counts the levels of each of its rules by themselves, and enters
    /// one more of a rule on the right side of its operators.
    fn check_depth(&self) -> Result<(), Found> {
        if self.depth + self.sums.max(self.comparisons) > DEEPEST {
            return Err(found(CelProblem::TooDeep, self.at));
        }
        Ok(())
    }

    /// Operands with operators between them.
    fn chain(&mut self) -> Result<Tree, Found> {
        let first = self.unary()?;
        // What is being put together on each level of precedence; `&&` and `||` add no height.
        let (mut comparison, mut sum, mut product) = (None, None, first);
        let mut highest = 0;
        let mut alone = true;
        loop {
            let at = self.at;
            let level = match self.token {
                Token::Sign("*" | "/" | "%") => Level::Product,
                Token::Sign("+" | "-") => Level::Sum,
                Token::Sign("<" | "<=" | ">=" | ">" | "==" | "!=") | Token::Name("in") => Level::Comparison,
                Token::Sign("&&" | "||") => Level::Logic,
                _ => break,
            };
            if alone {
                self.resolved(first.operand)?;
                alone = false;
            }
            self.advance()?;
            let (sums, comparisons) = match level {
                Level::Product => (1 + usize::from(sum.is_some()), usize::from(comparison.is_some())),
                Level::Sum => (1, usize::from(comparison.is_some())),
                Level::Comparison => (0, 1),
                Level::Logic => (0, 0),
            };
            let next = self.right_side(sums, comparisons)?;
            if level == Level::Product {
                product = product.under(next.height, at)?;
                continue;
            }
            let whole = joined(sum.take(), product, at)?;
            product = next;
            if level == Level::Sum {
                sum = Some(whole);
                continue;
            }
            let whole = joined(comparison.take(), whole, at)?;
            if level == Level::Comparison {
                comparison = Some(whole);
            } else {
                highest = highest.max(whole.height);
            }
        }
        if alone {
            return Ok(first);
        }
        let last = joined(comparison, joined(sum, product, self.at)?, self.at)?;
        Ok(Tree { operand: Operand::Value, height: highest.max(last.height) })
    }

    /// An operand on the right side of so many operators of this chain.
    fn right_side(&mut self, sums: usize, comparisons: usize) -> Result<Tree, Found> {
        (self.sums, self.comparisons) = (self.sums + sums, self.comparisons + comparisons);
        self.check_depth()?;
        let operand = self.unary()?;
        self.resolved(operand.operand)?;
        (self.sums, self.comparisons) = (self.sums - sums, self.comparisons - comparisons);
        Ok(operand)
    }

    /// A member with `!` or `-` before it, of one kind only and as many as you like.
    fn unary(&mut self) -> Result<Tree, Found> {
        for sign in ["!", "-"] {
            let mut signs = 0;
            while self.take(sign)? {
                signs += 1;
            }
            if signs > 0 {
                let tree = self.member(sign == "-" && signs == 1)?;
                self.resolved(tree.operand)?;
                return Ok(Tree { operand: Operand::Value, ..tree });
            }
        }
        self.member(false)
    }

    /// Something and what is asked of it: fields, calls and elements.
    fn member(&mut self, negated: bool) -> Result<Tree, Found> {
        let mut tree = self.primary(negated)?;
        loop {
            let asked = self.at;
            if self.take("[")? {
                self.not_optional("[?")?;
                self.resolved(tree.operand)?;
                has_parts(tree.operand, asked)?;
                let index = self.expression()?;
                self.expect("]")?;
                tree = tree.under(index.height, asked)?;
            } else if self.take(".")? {
                self.not_optional(".?")?;
                let (operand, arguments) = self.selection(tree.operand, asked)?;
                tree = Tree { operand, ..tree.under(arguments, asked)? };
            } else {
                return Ok(tree);
            }
        }
    }

    /// What follows the dot, and the height of arguments.
    fn selection(&mut self, operand: Operand, asked: usize) -> Result<(Operand, usize), Found> {
        let Token::Name(name) = self.token else {
            return Err(match self.token {
                Token::QuotedName => found(CelProblem::Unsupported("backquotes"), self.at),
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
            let field = match operand {
                Operand::Qualified(before) => Operand::Qualified(before.with(name)),
                _ => Operand::Field,
            };
            return Ok((field, 0));
        }
        self.resolved(operand)?;
        if let Some(macro_) = names::comprehension(name) {
            has_parts(operand, asked)?;
            return Ok((Operand::Value, self.comprehension(macro_, at)?));
        }
        self.advance()?;
        let (given, height) = self.arguments()?;
        let function =
            names::called(name).ok_or_else(|| found(CelProblem::UnknownFunction(excerpt(name)), at))?;
        if !function.on_value.contains(&given) {
            let called = format!(".{name}");
            return Err(found(CelProblem::WrongCall { called, given, usage: function.usage }, at));
        }
        Ok((Operand::Value, height))
    }

    /// A macro's arguments, from the opening bracket on; how high they are.
    fn comprehension(&mut self, macro_: Comprehension, at: usize) -> Result<usize, Found> {
        self.advance()?;
        if self.is(")") {
            let called = format!(".{}", macro_.name);
            return Err(found(CelProblem::WrongCall { called, given: 0, usage: macro_.usage }, at));
        }
        let element = self.element(macro_.name)?;
        self.elements.push(element);
        let (others, height) = self.arguments()?;
        self.elements.pop();
        let given = 1 + others;
        if macro_.arguments.contains(&given) {
            return Ok(height);
        }
        let called = format!(".{}", macro_.name);
        Err(found(CelProblem::WrongCall { called, given, usage: macro_.usage }, at))
    }

    /// The name for a macro's elements with the comma after it; brackets around it are allowed.
    fn element(&mut self, called: &'static str) -> Result<&'e str, Found> {
        let asked = self.at;
        let no_name = || found(CelProblem::NoElementName(called), asked);
        let depth = self.depth;
        self.depth += 1;
        while self.take("(")? {
            self.depth += 1;
            self.check_depth()?;
        }
        let dotted = self.take(".")?;
        let at = self.at;
        let name = match self.token {
            Token::Name(name) if !names::is_keyword(name) => name,
            _ => return Err(no_name()),
        };
        self.advance()?;
        while self.depth > depth + 1 {
            if !self.take(")")? {
                return Err(no_name());
            }
            self.depth -= 1;
        }
        self.depth = depth;
        if !self.take(",")? {
            return Err(no_name());
        }
        if names::is_reserved(name) || (!dotted && name == names::ACCUMULATOR) {
            return Err(found(CelProblem::Reserved(name.to_owned()), at));
        }
        // cel-go puts the name into the list that it builds, and with a dot it is no element's.
        if dotted && called == "filter" && names::variable(name).is_none() {
            return Err(found(CelProblem::UnknownVariable(excerpt(name)), at));
        }
        // With a dot before it nobody can refer to it.
        Ok(if dotted { "" } else { name })
    }

    /// Arguments up to the closing bracket: how many, and how high they are.
    fn arguments(&mut self) -> Result<(usize, usize), Found> {
        let (mut given, mut height) = (0, 0);
        if self.take(")")? {
            return Ok((given, height));
        }
        loop {
            height = self.expression()?.height.max(height);
            given += 1;
            if !self.take(",")? {
                self.expect(")")?;
                return Ok((given, height));
            }
        }
    }

    fn primary(&mut self, negated: bool) -> Result<Tree, Found> {
        let height = match self.token {
            Token::Name("true" | "false" | "null") | Token::Literal | Token::Double => {
                self.advance()?;
                0
            }
            Token::Int(magnitude) => {
                self.integer(magnitude, negated)?;
                0
            }
            // After `!` a sign belongs to the number.
            Token::Sign("-") if matches!(self.following(), Some(Token::Int(_) | Token::Double)) => {
                self.advance()?;
                return self.primary(true);
            }
            Token::Sign("(") => {
                self.advance()?;
                let tree = self.nested()?;
                self.expect(")")?;
                return Ok(tree);
            }
            Token::Sign("[") => self.list_literal()?,
            Token::Sign("{") => self.map_literal()?,
            _ => return self.name(),
        };
        Ok(Tree { operand: Operand::Value, height })
    }

    /// From the opening bracket on; how high it is.
    fn list_literal(&mut self) -> Result<usize, Found> {
        self.advance()?;
        self.list("]", |grammar| {
            grammar.not_optional("?")?;
            Ok(grammar.expression()?.height)
        })
    }

    /// From the opening brace on; how high it is.
    fn map_literal(&mut self) -> Result<usize, Found> {
        self.advance()?;
        self.list("}", |grammar| {
            grammar.not_optional("?")?;
            let key = grammar.expression()?.height;
            grammar.expect(":")?;
            Ok(grammar.expression()?.height.max(key))
        })
    }

    fn integer(&mut self, magnitude: Magnitude, negated: bool) -> Result<(), Found> {
        let at = self.at;
        self.advance()?;
        match (magnitude, negated) {
            (Magnitude::Fits, _) | (Magnitude::FitsNegated, true) => Ok(()),
            _ => Err(found(CelProblem::NumberTooLarge(excerpt(self.tokens.word_at(at))), at)),
        }
    }

    /// What stands between commas up to the closing bracket; how high it is.
    fn list(&mut self, close: &str, one: fn(&mut Self) -> Result<usize, Found>) -> Result<usize, Found> {
        let mut height = 0;
        while !self.is(close) && !self.is(",") {
            height = one(self)?.max(height);
            if !self.is(",") || self.following() == Some(Token::Sign(",")) {
                break;
            }
            self.advance()?;
        }
        // One may stand before the closing bracket, even without anything before it.
        self.take(",")?;
        self.expect(close)?;
        Ok(height)
    }

    /// Whether the names from here on, with dots between, end at the opening brace of a message.
    /// The grammar knows messages by that alone: no brackets, and whatever the first name means.
    fn names_message(&self) -> bool {
        let (mut ahead, mut token) = (self.tokens, self.token);
        let mut after_name = false;
        loop {
            after_name = match token {
                Token::Sign("{") => return after_name,
                Token::Sign(".") if after_name => false,
                Token::Name(name) if !after_name && !names::is_keyword(name) => true,
                _ => return false,
            };
            let Ok((next, _)) = ahead.next() else { return false };
            token = next;
        }
    }

    /// A message from the first part of its type's name on; how high it is.
    fn message(&mut self) -> Result<usize, Found> {
        let mut name = Qualified::new("", self.at);
        if let Token::Name(first) = self.token {
            name = Qualified::new(first, self.at);
        }
        self.advance()?;
        while self.take(".")? {
            if let Token::Name(part) = self.token {
                name = name.with(part);
            }
            self.advance()?;
        }
        if !name.is_type() {
            return Err(found(CelProblem::UnknownMessage(excerpt(self.tokens.word_at(name.at))), name.at));
        }
        self.fields()
    }

    /// The fields of a message, from the opening brace on; how high they are.
    fn fields(&mut self) -> Result<usize, Found> {
        self.advance()?;
        self.list("}", |grammar| {
            grammar.not_optional("?")?;
            match grammar.token {
                Token::Name(name) if !names::is_keyword(name) => grammar.advance()?,
                _ => return Err(grammar.unexpected()),
            }
            grammar.expect(":")?;
            Ok(grammar.expression()?.height)
        })
    }

    /// A variable, a message, or a call of a function; perhaps with a dot before it.
    fn name(&mut self) -> Result<Tree, Found> {
        let dotted = self.take(".")?;
        if self.names_message() {
            return Ok(Tree { operand: Operand::Value, height: self.message()? });
        }
        let at = self.at;
        let name = match self.token {
            Token::Name(name) if !names::is_keyword(name) => name,
            Token::QuotedName => return Err(found(CelProblem::Unsupported("backquotes"), at)),
            _ => return Err(self.unexpected()),
        };
        self.advance()?;
        if names::is_reserved(name) {
            return Err(found(CelProblem::Reserved(name.to_owned()), at));
        }
        if self.take("(")? {
            let height = self.call(name, at, dotted)?;
            // cel-go puts the field in the place of `has`, which can be asked about again.
            let operand = if name == "has" { Operand::Field } else { Operand::Value };
            return Ok(Tree { operand, height });
        }
        let operand = match names::variable(name) {
            _ if !dotted && self.elements.contains(&name) => Operand::Value,
            Some(Meaning::Plain(plain)) => Operand::Plain(plain),
            Some(Meaning::Open) => Operand::Value,
            None => Operand::Qualified(Qualified::new(name, at)),
        };
        Ok(Tree { operand, height: 0 })
    }

    /// A call on nothing, after the opening bracket; how high the arguments are.
    fn call(&mut self, name: &str, at: usize, dotted: bool) -> Result<usize, Found> {
        if name != "has" {
            let (given, height) = self.arguments()?;
            return match names::called(name) {
                Some(function) if function.alone.contains(&given) => Ok(height),
                _ => Err(found(wrong_call(name, given), at)),
            };
        }
        // A macro, and macros have no dot.
        if dotted {
            return Err(found(CelProblem::UnknownFunction(".has".to_owned()), at));
        }
        let asked = self.at;
        if self.take(")")? {
            return Err(found(wrong_call(name, 0), at));
        }
        let field = self.expression()?;
        if self.take(",")? {
            let (others, _) = self.arguments()?;
            return Err(found(wrong_call(name, 1 + others), at));
        }
        self.expect(")")?;
        match field.operand {
            Operand::Field => Ok(field.height),
            _ => Err(found(CelProblem::HasOfNoField, asked)),
        }
    }

    /// Refuses a name that stands for nothing.
    fn resolved(&self, operand: Operand) -> Result<(), Found> {
        match operand {
            Operand::Qualified(name) if !name.is_type() => {
                Err(found(CelProblem::UnknownVariable(excerpt(self.tokens.word_at(name.at))), name.at))
            }
            _ => Ok(()),
        }
    }

    fn not_optional(&self, syntax: &'static str) -> Result<(), Found> {
        if self.is("?") { Err(found(CelProblem::Unsupported(syntax), self.at)) } else { Ok(()) }
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
