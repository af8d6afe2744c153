//! Small C programs with many tables side by side, and functions that go through them in every way
//! whose address arithmetic the compiler may fold into an operand.

use std::fmt::Write;

/// Numbers that depend on the seed alone (xorshift64, Marsaglia 2003).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let index = self.below(of.len() as u64);
        of[usize::try_from(index).unwrap()]
    }
}

struct Table {
    number: usize,
    element: &'static str,
    count: u64,
    /// `const`, with content; with content; without.
    storage: &'static str,
    local: bool,
}

/// OLD's and NEW's source.
pub fn sources(seed: u64) -> (String, String) {
    let mut random = Random::new(seed);
    let mut tables: Vec<Table> = (0..8).map(|number| table(&mut random, number)).collect();
    let functions: Vec<String> = (0..10)
        .map(|number| {
            let (a, b) = (random.below(8), random.below(8));
            let (a, b) = (usize::try_from(a).unwrap(), usize::try_from(b).unwrap());
            function(&mut random, number, &tables[a], &tables[b])
        })
        .collect();
    let old = program(&tables, &functions);
    for _ in 0..1 + random.below(3) {
        let at = usize::try_from(random.below(tables.len() as u64)).unwrap();
        match random.below(3) {
            // Tables in another order.
            0 => {
                let moved = tables.remove(at);
                tables.push(moved);
            }
            // A new one, used as all are.
            _ => {
                let number = tables.len();
                tables.insert(at, table(&mut random, number));
            }
        }
    }
    let mut functions = functions;
    for table in tables.iter().filter(|t| t.number >= 8) {
        functions.push(function(&mut random, functions.len(), table, table));
    }
    (old, program(&tables, &functions))
}

fn table(random: &mut Random, number: usize) -> Table {
    Table {
        number,
        element: random.one(&["char", "short", "int", "long", "word", "pair"]),
        count: match random.below(3) {
            0 => 1 + random.below(7),
            1 => 8 * (1 + random.below(6)),
            _ => 1 + random.below(50),
        },
        storage: random.one(&["const", "const", "const", "data", "bss"]),
        local: random.below(2) == 0,
    }
}

fn program(tables: &[Table], functions: &[String]) -> String {
    let mut out = String::from(
        "typedef const char *word;\n\
         typedef struct { int a; short b; char c; } pair;\n\
         #define APART __attribute__((noinline, noclone))\n\
         #define VALUE_char(x) (x)\n#define VALUE_short(x) (x)\n#define VALUE_int(x) (x)\n\
         #define VALUE_long(x) (x)\n#define VALUE_word(x) ((x) ? *(x) : 0)\n\
         #define VALUE_pair(x) ((x).b)\n\
         extern long range(const void *, const void *);\n\
         extern long number(long);\n",
    );
    for table in tables {
        let local = if table.local { "static " } else { "" };
        let constant = if table.storage == "const" { "const " } else { "" };
        write!(out, "{local}{constant}{} t{}[{}]", table.element, table.number, table.count)
            .unwrap();
        if table.storage != "bss" {
            let values: Vec<String> = (0..table.count)
                .map(|i| match table.element {
                    "word" => format!("\"text {} of {}\"", i, table.number),
                    "pair" => format!("{{{i}, {}, 3}}", i + table.number as u64),
                    _ => format!("{}", (i * 7 + table.number as u64 + 1) % 100),
                })
                .collect();
            write!(out, " = {{{}}}", values.join(", ")).unwrap();
        }
        out += ";\n";
    }
    for (i, function) in functions.iter().enumerate() {
        writeln!(out, "APART long f{i}(long x, long y) {{ long s = VERSION;\n{function}}}")
            .unwrap();
    }
    out += "APART long number(long n) { __asm__ volatile(\"\" : \"+r\"(n)); return n; }\n\
            APART long range(const void *a, const void *b) {\n\
            __asm__ volatile(\"\" : : \"r\"(a), \"r\"(b) : \"memory\"); return VERSION; }\n\
            int main(int argc, char **argv) { long s = (long)argv;\n";
    for i in 0..functions.len() {
        writeln!(out, "s += f{i}(number(argc), s);").unwrap();
    }
    for table in tables.iter().filter(|t| t.storage != "const" && t.element != "pair") {
        writeln!(out, "t{}[number(argc)] = ({})s;", table.number, table.element).unwrap();
    }
    out + "return (int)s; }\n"
}

/// A body that goes through one or two tables.
fn function(random: &mut Random, number: usize, a: &Table, b: &Table) -> String {
    let (t, n, element) = (format!("t{}", a.number), a.count, a.element);
    let value = |x: &str| format!("VALUE_{element}({x})");
    let other = format!("VALUE_{}(t{}[i])", b.element, b.number);
    let bias = random.one(&["1", "2", "'0'", "'A'", "'a'", "7", "100"]);
    let body = match random.below(14) {
        0 => format!("for (int i = 0; i < {n}; i++) s = s * 31 + {};", value(&format!("{t}[i]"))),
        1 => format!("for (int i = {n}; i-- > 0;) s = s * 31 + {};", value(&format!("{t}[i]"))),
        2 => format!(
            "for (const {element} *p = {t}; p != {t} + {n}; p++) s += number({});",
            value("*p")
        ),
        3 => format!("s += {};", value(&format!("{t}[x - {bias}]"))),
        4 => format!("s += {};", value(&format!("{t}[{n} - x]"))),
        5 => format!(
            "for (const {element} *p = {t} + {n}; p > {t};) {{ p--; s += number({}); }}",
            value("*p")
        ),
        6 => format!("s += range({t}, {t} + {n});"),
        7 => format!("s += range(t{}, {t});", b.number),
        8 => format!("if ((const void *)y == (const void *){t}) s += 7; s += number(x);"),
        9 => format!(
            "for (int i = 0; i < {}; i++) s += number({}) + {other};",
            n.min(b.count),
            value(&format!("{t}[i]"))
        ),
        10 => format!(
            "for (int i = 0; i < {n}; i++) s += number({0}); \
             for (int i = 0; i < {1}; i++) s += number({other});",
            value(&format!("{t}[i]")),
            b.count
        ),
        11 => format!("for (int i = 0; i < {n}; i += 2) s ^= {} + x;", value(&format!("{t}[i]"))),
        12 => format!("for (long i = x; i < {n}; i++) s += number({});", value(&format!("{t}[i]"))),
        _ => format!("while (y-- > 0) s += {};", value(&format!("{t}[y + x - {bias}]"))),
    };
    // A table of jumps in every other one: then all constants may be carried.
    let switch = if random.below(2) == 0 {
        let cases: String = (0..7)
            .map(|i| format!("case {i}: s += number({}); break;\n", i * i * 5 + number as u64))
            .collect();
        format!("switch (x) {{\n{cases}}}\n")
    } else {
        String::new()
    };
    format!("{switch}{body}\nreturn s;\n")
}
