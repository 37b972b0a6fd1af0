# Runs the steps of a program and says how each went: see steps.txt.

FIRST = Integer(ENV.fetch("FIRST"))
USERS = (FIRST...FIRST + 16).to_a
SOME = USERS.first(8)
TEXT = "Grüße 東京 🚀 \\ ' \" $1 %s -- /* {} \\N \t."
NUMBERS = [1, nil, -3, 2147483647]
WORDS = ["a", "b c", 'quo"te', "", nil, "NULL", "ünï,{}\\"]
DATA = { "a" => 1, "b" => [true, nil, "ü'\"\\"], "c" => { "x" => 1.5 } }
PRICE = "12345678901234.567891"
BIG = "1234567890123456789012345678901234567890.0123456789"
BYTES = (0..255).to_a.pack("C*")
COLUMNS = %w[numbers words data doc at local day price big ratio bytes flag note]

# The driver has no such thing.
class Missing < StandardError; end

def same(got, expected)
  raise "got #{got.inspect}, expected #{expected.inspect}" unless got == expected
end

$steps = {}

def step(name, &block)
  $steps[name] = block
end

# Each step in turn with what `open` gives; after one that failed it is opened anew.
def run_steps(open:, close:)
  failed = false
  conn = nil
  $steps.each do |name, block|
    conn ||= open.call
    block.call(conn)
    puts "ok #{name}"
  rescue Missing => e
    puts "none #{name}: #{e.message}"
  rescue StandardError => e
    failed = true
    puts "fail #{name}: #{e.class}: #{e.message.gsub(/\s+/, " ")}"
    warn e.full_message(highlight: false)
    close.call(conn) if conn
    conn = nil
  end
  $stdout.flush
  exit!(failed ? 1 : 0)
end
