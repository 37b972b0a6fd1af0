//! What a statement says: plain data, no shard number, no connection. Made by [`super::parse`], used by `route`.
//!
//! A plan is a list of query levels. A level has items (what stands in its FROM), facts (what must hold of the rows of
//! some items for them to matter) and outputs (its columns). Names are kept as they were written, folded as Postgres
//! folds them; what they mean is found with the catalog in `route`.

use std::ops::Range;

use smallvec::SmallVec;

use super::copy;
use super::ddl::Ddl;
use super::rewrite::Pos;
use super::select::SelectText;

/// A level's index in [`Plan::levels`].
pub type LevelId = usize;

/// What one statement says. Serves every text of its shape, unless [`Plan::per_text`].
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What kind of statement it is.
    pub verb: Verb,
    /// What the statement is wrapped in.
    pub wrap: Wrap,
    /// All query levels: subqueries, CTEs and arms of set operations too.
    pub levels: Vec<Level>,
    /// The outermost level; `None` for statements without one.
    pub root: Option<LevelId>,
    /// How the outermost SELECT is written, if it is one and its parts could be told apart.
    pub select: Option<SelectText>,
    /// The table of a `COPY table`.
    pub copy: Option<CopyTable>,
    /// Of a COPY: where the data goes to or comes from.
    pub copy_end: CopyEnd,
    /// Of a COPY: how the data is written, or what of it is not understood.
    pub copy_options: Result<copy::Options, String>,
    /// Functions called, wherever they stand.
    pub calls: Vec<Call>,
    /// String literals that name a table, sequence or function (`'photos'::regclass`).
    pub objects: Vec<ObjectLiteral>,
    /// `schema.table.column` and `schema.table.*` in expressions.
    pub schemas: Vec<SchemaRef>,
    /// Types named in casts, other than those of Postgres that need no search path.
    pub types: Vec<TypeRef>,
    /// Every place where a parameter stands.
    pub params: Vec<ParamUse>,
    /// Words of the text to which no part of the plan gave a meaning: keywords mostly. A table's name among them means
    /// that the statement was not understood.
    pub words: Vec<String>,
    /// What a statement of DDL says, if it could be read.
    pub ddl: Option<Box<Ddl>>,
    /// It makes a temporary table of what the query gives.
    pub temporary: bool,
    /// The plan holds the value of some literal: it serves this very text only.
    pub per_text: bool,
    /// Where the parts of an `INSERT ... VALUES` stand that is the whole statement.
    pub insert: Option<Box<InsertText>>,
}

/// An `INSERT` of given rows, by place: what is needed to write one for some of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct InsertText {
    /// Each row, from its opening parenthesis to behind its closing one. Empty: `DEFAULT VALUES`.
    pub rows: Vec<Range<Pos>>,
    /// `DEFAULT VALUES`, if that is what it says.
    pub default_values: Option<Range<Pos>>,
    /// The closing parenthesis of the column list, or where one would have to stand.
    pub columns_end: Pos,
    /// Cells that are DEFAULT: row, column, place.
    pub defaults: Vec<(u32, u32, Place)>,
    /// Every parameter of the statement, in order.
    pub params: Vec<(Place, u16)>,
    /// ON CONFLICT.
    pub conflict: OnConflict,
    /// Where it stands, up to DO.
    pub conflict_target: Option<Range<Pos>>,
}

/// What an INSERT does about rows that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// It fails.
    Fail,
    /// DO NOTHING.
    Nothing,
    /// DO UPDATE.
    Update,
    /// DO UPDATE ... WHERE.
    UpdateSome,
}

impl Plan {
    /// It makes a temporary table.
    pub fn is_temporary(&self) -> bool {
        let makes =
            |verb: &Verb| matches!(verb, Verb::Utility(verb) if verb == "CREATE TEMP TABLE");
        self.temporary || makes(&self.verb)
    }
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            verb: Verb::Empty,
            wrap: Wrap::Bare,
            levels: Vec::new(),
            root: None,
            select: None,
            copy: None,
            copy_end: CopyEnd::Client,
            copy_options: Ok(copy::Options::default()),
            calls: Vec::new(),
            objects: Vec::new(),
            schemas: Vec::new(),
            types: Vec::new(),
            params: Vec::new(),
            words: Vec::new(),
            ddl: None,
            insert: None,
            temporary: false,
            per_text: false,
        }
    }
}

/// The table of a COPY.
#[derive(Clone, Debug, PartialEq)]
pub struct CopyTable {
    /// The table.
    pub table: TableRef,
    /// Where its name ends.
    pub name_end: Pos,
    /// The columns named, if they are.
    pub columns: Option<Vec<String>>,
    /// The words of WHERE.
    pub filter: Vec<String>,
}

/// The other end of a COPY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyEnd {
    /// The client: STDIN, STDOUT.
    #[default]
    Client,
    /// A file of the server's.
    File,
    /// A program that the server runs.
    Program,
}

/// What kind of statement a plan is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Verb {
    /// No statement: white space and comments.
    #[default]
    Empty,
    /// SELECT, VALUES, TABLE, WITH ... SELECT.
    Select,
    /// INSERT, UPDATE, DELETE, MERGE (also after WITH).
    Write,
    /// COPY table FROM.
    CopyFrom,
    /// COPY table TO.
    CopyTo,
    /// Anything else, named by its first words in upper case: `CREATE TABLE`.
    Utility(String),
}

/// What a statement is wrapped in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wrap {
    /// Nothing.
    #[default]
    Bare,
    /// EXPLAIN.
    Explain,
    /// DECLARE ... CURSOR FOR.
    Cursor,
    /// COPY (...) TO.
    CopyOut,
}

/// An identifier of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it begins.
    pub pos: Pos,
    /// Its length in bytes, quotes included.
    pub len: u32,
}

/// A table as the text names it.
#[derive(Clone, Debug, PartialEq)]
pub struct TableRef {
    /// The schema, if there is one.
    pub schema: Option<(String, Place)>,
    /// The name.
    pub name: String,
    /// Where the name stands (without the schema).
    pub place: Place,
}

/// One query level.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    /// Where names are looked for that this level does not have.
    pub parent: Option<LevelId>,
    /// What the level does.
    pub body: Body,
    /// What stands in FROM (or is written to: then the first), from left to right.
    pub items: Vec<Item>,
    /// How the items are joined, inner joins by comma left out.
    pub joins: Vec<Join>,
    /// What must hold.
    pub facts: Vec<Fact>,
    /// The columns that it gives: SELECT list or RETURNING.
    pub outputs: Vec<Output>,
    /// What makes one row that it gives.
    pub gives: Gives,
    /// What each window partitions by.
    pub windows: Vec<Vec<Term>>,
    /// What else is in it.
    pub features: Features,
    /// How many FROM items are this level (0 for the outermost level and for subqueries in expressions).
    pub refs: u32,
    /// A common table expression that names itself.
    pub recursive: bool,
}

/// What makes one row that a level gives.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Gives {
    /// One row of its items (or all of them, if it calls an aggregate).
    #[default]
    Rows,
    /// Those rows whose outputs are alike: DISTINCT.
    Alike,
    /// Those rows for which these terms are alike: GROUP BY.
    Groups(Vec<Term>),
    /// Something else: grouping sets, DISTINCT ON.
    Other,
}

/// What a level does.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// SELECT.
    Select,
    /// VALUES: its rows.
    Values(Vec<Vec<Term>>),
    /// UNION, INTERSECT, EXCEPT of two levels.
    SetOp(LevelId, LevelId),
    /// INSERT into item 0.
    Insert {
        /// The columns named, if they are.
        columns: Option<Vec<String>>,
        /// Where the rows come from; `None`: DEFAULT VALUES.
        source: Option<LevelId>,
        /// ON CONFLICT DO UPDATE SET.
        sets: Vec<Set>,
    },
    /// UPDATE of item 0.
    Update(Vec<Set>),
    /// DELETE from item 0.
    Delete,
    /// MERGE into item 0, from item 1.
    Merge {
        /// WHEN NOT MATCHED THEN INSERT: columns and values.
        inserts: Vec<(Option<Vec<String>>, Vec<Term>)>,
        /// WHEN MATCHED THEN UPDATE SET.
        sets: Vec<Set>,
        /// Some branch acts on rows of the target that match nothing.
        by_source: bool,
    },
}

/// `column = value` in a SET list.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// The column set.
    pub column: String,
    /// What it is set to.
    pub value: Term,
}

/// Something that stands in FROM.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What it is.
    pub source: Source,
    /// Its alias, if it has one.
    pub alias: Option<String>,
    /// Names given to its first columns: `AS p(a, b)`.
    pub columns: Vec<String>,
}

/// What stands in FROM.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A table.
    Table(TableRef),
    /// A derived table, or a reference to a common table expression.
    Level(LevelId),
    /// A function, UNNEST, JSON_TABLE ...: its columns are not known. With its name where that names the column.
    Function(String),
    /// `unnest(array, ...)`: a column for each array, none else.
    Unnest(Vec<Elements>),
    /// `excluded` of ON CONFLICT: the row that was to be inserted into item 0.
    Excluded,
}

/// The elements of an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Those of one literal or parameter.
    Of(Const),
    /// `ARRAY[...]` of literals and parameters.
    List(Vec<Const>),
    /// Not known.
    Unknown,
}

/// A join of two neighbouring runs of items.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// Items on the left.
    pub left: Range<usize>,
    /// Items on the right.
    pub right: Range<usize>,
    /// Its kind.
    pub kind: JoinKind,
    /// USING and NATURAL; ON is among the level's facts.
    pub using: Using,
    /// What `USING (...) AS alias` calls the columns that it joined.
    pub alias: Option<String>,
}

/// The kind of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// INNER and CROSS.
    Inner,
    /// LEFT.
    Left,
    /// RIGHT.
    Right,
    /// FULL.
    Full,
}

/// Columns joined by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Using {
    /// None.
    Nothing,
    /// USING (...).
    Columns(Vec<String>),
    /// NATURAL.
    Natural,
}

/// A condition without which rows do not matter: if it does not hold, the rows of the items in `restricts` that took
/// part have no influence on the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The items whose rows it restricts.
    pub restricts: Range<usize>,
    /// What must hold.
    pub what: Condition,
}

/// What must hold. All are strict: null on either side does not fulfil them.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// `a = b`
    Equal(Term, Term),
    /// `a IN (b, c)`, or `a = b OR a = c`.
    In(Term, Vec<Term>),
    /// `a = ANY (array)`.
    Any(Term, Const),
    /// `a IN (subquery)`: `.0` equals column `.2` of some row of level `.1`, of which only such rows matter.
    Within(Term, LevelId, usize),
}

/// A value as far as routing cares.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// A column.
    Column(Column),
    /// A literal or parameter.
    Const(Const),
    /// Column `.1` of the subquery `.0`.
    Output(LevelId, usize),
    /// DEFAULT.
    Default,
    /// A function call.
    Call,
    /// Anything else.
    Other,
}

/// A column as the text names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The schema of `schema.table.column`.
    pub schema: Option<String>,
    /// The table or alias of `table.column`.
    pub table: Option<String>,
    /// The column.
    pub name: String,
}

/// A literal or parameter under casts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Const {
    /// Where the value is.
    pub from: ConstFrom,
    /// A minus stands before the number.
    pub negative: bool,
    /// The casts, innermost first. Of the elements, if the value is an array.
    pub casts: SmallVec<[Cast; 1]>,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstFrom {
    /// The literal that is this hole.
    Hole(u32),
    /// `$n`, counted from 1.
    Param(u16),
    /// NULL.
    Null,
}

/// Casts that keep a key's value, if the value can be written in the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// smallint
    Int2,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// numeric without precision
    Numeric,
    /// text, varchar without length
    Text,
    /// uuid
    Uuid,
}

/// A column that a level gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// An expression with its name, if it has one that can be told.
    Term(Option<String>, Term),
    /// `*`, or `table.*`.
    Star(Option<String>),
}

/// What a level has, beside items and facts, that bears on how its rows may be split or joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// DISTINCT or DISTINCT ON.
    pub distinct: bool,
    /// The set operation is UNION ALL.
    pub union_all: bool,
    /// GROUP BY or HAVING.
    pub group: bool,
    /// A window function.
    pub window: bool,
    /// ORDER BY.
    pub order: bool,
    /// LIMIT, OFFSET, FETCH.
    pub limit: bool,
    /// FOR UPDATE and the like.
    pub locking: bool,
    /// TABLESAMPLE.
    pub sample: bool,
}

/// A function call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The level in which it stands.
    pub level: LevelId,
    /// Its schema, if named.
    pub schema: Option<String>,
    /// Its name.
    pub name: String,
    /// It has an OVER clause.
    pub window: bool,
    /// Its arguments are none, or `*`.
    pub bare: bool,
    /// It stands in FROM.
    pub from: bool,
    /// The columns in it; `None`: a subquery is in it.
    pub columns: Option<Vec<Column>>,
}

/// A string literal that names an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLiteral {
    /// The function that it is given to, or `regclass` and the like.
    pub to: String,
    /// The hole; `None`: the name is not a literal (`$1::regclass`), so it can't be read here.
    pub hole: Option<u32>,
    /// The parts of the name: schema, if there is one, and name.
    pub parts: Vec<String>,
}

/// A schema before a table's name before a column's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRef {
    /// The schema.
    pub schema: String,
    /// Where it stands.
    pub place: Place,
    /// The table.
    pub table: String,
}

/// A type named in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRef {
    /// Its schema, if named.
    pub schema: Option<(String, Place)>,
    /// Its name.
    pub name: String,
    /// Where the name stands (without the schema).
    pub place: Place,
}

/// One place where a parameter stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamUse {
    /// `$n`, counted from 1.
    pub param: u16,
    /// What gives it its type there.
    pub with: TypedBy,
}

/// What gives a parameter its type.
#[derive(Clone, Debug, PartialEq)]
pub enum TypedBy {
    /// It is compared with this column, seen from this level.
    Column(LevelId, Column),
    /// It is column `.1` of a row of the VALUES or SELECT level `.0`; if that is what an INSERT inserts, the column of
    /// the table decides.
    Row(LevelId, usize),
    /// It is what this column of the table that the level writes to is set to.
    Target(LevelId, String),
    /// It is cast.
    Cast(Cast),
    /// Something else.
    Unknown,
}

/// Why a text has no plan, and the names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What could not be read.
    pub why: String,
    /// All identifiers of the text, folded, each once.
    pub words: Vec<String>,
}

impl Level {
    /// It changes rows.
    pub fn writes(&self) -> bool {
        match self.body {
            Body::Select | Body::Values(_) | Body::SetOp(..) => false,
            Body::Insert { .. } | Body::Update(_) | Body::Delete | Body::Merge { .. } => true,
        }
    }
}
