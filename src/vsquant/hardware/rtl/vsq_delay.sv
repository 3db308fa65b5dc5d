// What was `in` LENGTH enabled cycles ago: a ring of words, of which one is written a cycle.
`default_nettype none
module vsq_delay #(
    parameter int WIDTH = 8,
    parameter int LENGTH = 4
) (
    input  wire              clk,
    input  wire              rst,
    input  wire              enable,
    input  wire  [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);
  localparam int ADDRESS_BITS = (LENGTH > 1) ? $clog2(LENGTH) : 1;
  localparam logic [ADDRESS_BITS-1:0] LAST = ADDRESS_BITS'(LENGTH - 1);

  logic [WIDTH-1:0]        words [0:LENGTH-1];
  logic [ADDRESS_BITS-1:0] address;

  assign out = words[address];

  always_ff @(posedge clk) if (enable) words[address] <= in;

  always_ff @(posedge clk) begin
    if (rst) address <= '0;
    else if (enable) address <= (address == LAST) ? '0 : address + 1'b1;
  end
endmodule
`default_nettype wire
