// A memory with one write and one read port. The word that `read` asks for is there in the next cycle and stays until
// the next read. In synthesis a black box, to be replaced by a macro of the library.
`default_nettype none
`ifdef SYNTHESIS
(* blackbox *)
`endif
module vsq_sram #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16,
    parameter int ADDRESS_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1
) (
    input  wire                     clk,
    input  wire                     write,
    input  wire  [ADDRESS_BITS-1:0] write_address,
    input  wire  [WIDTH-1:0]        write_data,
    input  wire                     read,
    input  wire  [ADDRESS_BITS-1:0] read_address,
    output logic [WIDTH-1:0]        read_data
);
`ifndef SYNTHESIS
  logic [WIDTH-1:0] words [0:DEPTH-1];

  always_ff @(posedge clk) begin
    if (write) words[write_address] <= write_data;
    if (read) read_data <= words[read_address];
  end
`endif
endmodule
`default_nettype wire
