// Feeds vsq_top the words of golden/ and compares what leaves. configuration.svh has widths and counts. Every port
// hesitates in +stall=PERCENT of the cycles (0 where it is not given), from the random numbers of +seed=N. Without
// hesitation the cycles must be those of the cycle model.
`default_nettype none
module vsq_testbench;
`include "configuration.svh"
  logic clk = 1'b0;
  logic rst = 1'b1;
  int   stall = 0;
  int   seed = 1;
  int   cycles = 0;
  int   last = 0;

  logic [COMMAND_BITS-1:0]     command;
  logic [WEIGHTS_BITS-1:0]     weights;
  logic [ACTIVATIONS_BITS-1:0] activations;
  logic [CONSTANTS_BITS-1:0]   constants;
  logic [SUMS_BITS-1:0]        sums;
  logic [CODES_BITS-1:0]       codes;
  wire [5:0] valid, ready, done;
  wire [1:0] wrong;

  always #1 clk = !clk;

  vsq_testbench_source #(.BITS(COMMAND_BITS), .COUNT(COMMAND_COUNT), .FILE("golden/command.hex")) u_command
      (.clk(clk), .rst(rst), .stall(stall), .valid(valid[0]), .ready(ready[0]), .word(command), .done(done[0]));
  vsq_testbench_source #(.BITS(WEIGHTS_BITS), .COUNT(WEIGHTS_COUNT), .FILE("golden/weights.hex")) u_weights
      (.clk(clk), .rst(rst), .stall(stall), .valid(valid[1]), .ready(ready[1]), .word(weights), .done(done[1]));
  vsq_testbench_source #(.BITS(ACTIVATIONS_BITS), .COUNT(ACTIVATIONS_COUNT), .FILE("golden/activations.hex")) u_activations
      (.clk(clk), .rst(rst), .stall(stall), .valid(valid[2]), .ready(ready[2]), .word(activations), .done(done[2]));
  vsq_testbench_source #(.BITS(CONSTANTS_BITS), .COUNT(CONSTANTS_COUNT), .FILE("golden/constants.hex")) u_constants
      (.clk(clk), .rst(rst), .stall(stall), .valid(valid[3]), .ready(ready[3]), .word(constants), .done(done[3]));
  vsq_testbench_sink #(.BITS(SUMS_BITS), .COUNT(SUMS_COUNT), .FILE("golden/sums.hex")) u_sums
      (.clk(clk), .rst(rst), .stall(stall), .valid(valid[4]), .ready(ready[4]), .word(sums), .done(done[4]), .wrong(wrong[0]));
  vsq_testbench_sink #(.BITS(CODES_BITS), .COUNT(CODES_COUNT), .FILE("golden/codes.hex")) u_codes
      (.clk(clk), .rst(rst), .stall(stall), .valid(valid[5]), .ready(ready[5]), .word(codes), .done(done[5]), .wrong(wrong[1]));

  vsq_top u_top (
      .clk(clk),
      .rst(rst),
      .command_valid(valid[0]),
      .command_ready(ready[0]),
      .command(command),
      .weights_valid(valid[1]),
      .weights_ready(ready[1]),
      .weights(weights),
      .activations_valid(valid[2]),
      .activations_ready(ready[2]),
      .activations(activations),
      .constants_valid(valid[3]),
      .constants_ready(ready[3]),
      .constants(constants),
      .sums_valid(valid[4]),
      .sums_ready(ready[4]),
      .sums(sums),
      .codes_valid(valid[5]),
      .codes_ready(ready[5]),
      .codes(codes)
  );

  initial begin
    if ($value$plusargs("stall=%d", stall)) begin end
    if ($value$plusargs("seed=%d", seed)) begin end
    seed = $urandom(seed);
    repeat (3) @(posedge clk);
    @(negedge clk) rst = 1'b0;
  end

  always @(posedge clk) begin
    if (!rst) begin
      cycles <= cycles + 1;
      if ((valid[4] && ready[4]) || (valid[5] && ready[5])) last <= cycles;
      if (|wrong) begin
        $display("FAIL: a word is wrong");
        $finish;
      end else if (&done) begin
        if (stall == 0 && last + 1 != CYCLES)
          $display("FAIL: %0d cycles, not the %0d of the cycle model", last + 1, CYCLES);
        else
          $display("PASS: %0d sums and %0d codes words are exact, in %0d cycles", SUMS_COUNT, CODES_COUNT, last + 1);
        $finish;
      end else if (cycles - last > CYCLES + 100000) begin
        $display("FAIL: nothing has left since cycle %0d", last);
        $finish;
      end
    end
  end
endmodule

// Offers the words of FILE one after the other; a word on offer stays until it is taken.
module vsq_testbench_source #(
    parameter int BITS = 1,
    parameter int COUNT = 1,
    parameter FILE = ""
) (
    input  wire             clk,
    input  wire             rst,
    input  wire  int        stall,
    output logic            valid,
    input  wire             ready,
    output logic [BITS-1:0] word,
    output logic            done
);
  logic [BITS-1:0] words [0:COUNT];
  int              sent;

  initial if (COUNT > 0) $readmemh(FILE, words, 0, COUNT - 1);

  assign word = words[sent];
  assign done = sent == COUNT;

  always @(posedge clk) begin
    if (rst) begin
      sent <= 0;
      valid <= COUNT > 0;
    end else if (valid && ready) begin
      sent <= sent + 1;
      valid <= sent + 1 < COUNT && $urandom_range(99, 0) >= stall;
    end else if (!valid) begin
      valid <= sent < COUNT && $urandom_range(99, 0) >= stall;
    end
  end
endmodule

// Takes words and compares them with those of FILE.
module vsq_testbench_sink #(
    parameter int BITS = 1,
    parameter int COUNT = 1,
    parameter FILE = ""
) (
    input  wire             clk,
    input  wire             rst,
    input  wire  int        stall,
    input  wire             valid,
    output logic            ready,
    input  wire  [BITS-1:0] word,
    output logic            done,
    output logic            wrong
);
  logic [BITS-1:0] words [0:COUNT];
  int              taken;

  initial if (COUNT > 0) $readmemh(FILE, words, 0, COUNT - 1);

  assign done = taken == COUNT;

  always @(posedge clk) begin
    if (rst) begin
      taken <= 0;
      ready <= 1'b1;
      wrong <= 1'b0;
    end else begin
      ready <= $urandom_range(99, 0) >= stall;
      if (valid && ready) begin
        taken <= taken + 1;
        if (done || word !== words[taken]) begin
          $display("%m: word %0d is %h, not %h", taken, word, words[taken]);
          wrong <= 1'b1;
        end
      end
    end
  end
endmodule
`default_nettype wire
